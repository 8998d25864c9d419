"""The section `loss` alone; `test_schema.py` tests the section as a part of a recipe."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mtl_nlp.recipe.loss import LossRecipe


def test_plain_section_is_the_plain_sum_scaled_by_rows():
    assert LossRecipe() == LossRecipe(weighting="static", weights={}, scale="rows")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), 1e39])
def test_weights_are_finite_and_not_negative(weight: float):
    with pytest.raises(ValidationError, match="finite and at least 0"):
        LossRecipe(weights={"pos": weight})


def test_weights_exclude_a_method_that_chooses_them():
    with pytest.raises(
        ValidationError, match="`weights` are for `weighting: static`, and `dwa` chooses the weights itself"
    ):
        LossRecipe(weighting="dwa", weights={"pos": 0.5})


def test_unknown_weighting_is_refused_with_all_names():
    with pytest.raises(ValidationError, match="'uncertainty', 'dwa', 'random', 'gradnorm', 'imtl-l', 'famo', 'stch'"):
        LossRecipe(weighting="uncertanty")
