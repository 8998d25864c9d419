from __future__ import annotations

import pytest

from mtl_nlp.recipe.weights import check_loss_weights


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), float("-inf")])
def test_a_weight_out_of_range_is_refused_and_its_task_named(weight):
    with pytest.raises(ValueError, match=f"the weight of 'ner' should be finite and at least 0, found {weight}"):
        check_loss_weights({"pos": 1.0, "ner": weight})


@pytest.mark.parametrize("weights", [{}, {"pos": 0}, {"pos": 0.0, "ner": 2.5}])
def test_finite_weights_from_zero_are_accepted(weights):
    check_loss_weights(weights)
