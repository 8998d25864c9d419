from __future__ import annotations

import pytest

from mtl_nlp.recipe.checks import check_loss_weights, check_not_negative, check_positive

BAD = [-1.0, float("inf"), float("nan")]


def test_finite_numbers_of_at_least_0_are_accepted():
    check_not_negative("pull", 0)
    check_loss_weights({})
    check_loss_weights({"pos": 0.0, "ner": 1, "topic": 2.5})


@pytest.mark.parametrize("value", [0.0, *BAD])
def test_positive_numbers_are_above_0(value):
    check_positive("mu", 1e-9)
    with pytest.raises(ValueError, match=rf"^`mu` should be finite and above 0\. Found {value}\.$"):
        check_positive("mu", value)


@pytest.mark.parametrize("value", BAD)
def test_negative_and_infinite_numbers_are_refused(value):
    with pytest.raises(ValueError, match=rf"^`pull` should be finite and at least 0\. Found {value}\.$"):
        check_not_negative("pull", value)
    with pytest.raises(
        ValueError, match=rf"^`loss_weights` should be finite and at least 0\. Found {value} for 'ner'\.$"
    ):
        check_loss_weights({"pos": 1.0, "ner": value})
