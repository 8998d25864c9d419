from __future__ import annotations

import pytest

from mtl_nlp.recipe.checks import (
    check_loss_weights,
    check_not_negative,
    check_positive,
    check_weight_is_left,
    ends_of,
)

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
    with pytest.raises(ValueError, match=rf"^`loss_weights\.ner` should be finite and at least 0\. Found {value}\.$"):
        check_loss_weights({"pos": 1.0, "ner": value})
    with pytest.raises(ValueError, match=r"^`loss_weights\.ner` should be finite and at least 0\. Found \[1\.0, "):
        check_loss_weights({"ner": [1.0, value]})


def test_number_stays_and_a_pair_has_two_ends():
    assert ends_of(0.5) == (0.5, 0.5)
    assert ends_of((1.0, 0.2)) == (1.0, 0.2)


@pytest.mark.parametrize(
    ("weights", "time"),
    [({"pos": 0, "ner": 0.0}, "start"), ({"pos": [0, 1], "ner": 0}, "start"), ({"pos": [1, 0], "ner": [2, 0]}, "end")],
)
def test_weights_of_zero_for_all_tasks_are_refused(weights, time):
    with pytest.raises(
        ValueError,
        match=rf"^some task should have a loss weight above 0 .* Found 0 for every task at the {time} of training\.$",
    ):
        check_weight_is_left(weights, ["pos", "ner"])
    check_weight_is_left(weights, ["pos", "ner", "topic"])
    check_weight_is_left({"pos": [1, 0], "ner": [0, 1]}, ["pos", "ner"])
