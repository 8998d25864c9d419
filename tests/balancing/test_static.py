from __future__ import annotations

import pytest
import torch

from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts

STEP = WeightingStep(StepCounts(0, {}, {}), {})


@pytest.mark.parametrize("weights", [None, {}, {"pos": 0.3, "a.b": 2.0}])
def test_weights_are_the_given_weights(weights):
    assert {task: float(weight) for task, weight in Static(weights).weights(STEP).items()} == pytest.approx(
        weights or {}
    )


def test_static_weighting_has_no_state_and_no_trained_parameters():
    static = Static({"pos": 0.3})
    assert not static.state_dict()
    assert not list(static.parameters())
    assert static.is_constant


def test_weights_move_to_the_device_with_the_weighting():
    assert Static({"pos": 0.3}).to("meta").weights(STEP)["pos"].device == torch.device("meta")


def test_weight_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"`loss_weights\.pos` should be finite and at least 0\. Found -1\.0"):
        Static({"pos": -1.0})


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1.0), (0.25, 0.8), (1.0, 0.2)])
def test_pair_moves_linearly_and_other_weights_stay(progress, expected):
    static = Static({"pos": [1.0, 0.2], "ner": 0.3})
    weights = static.weights(WeightingStep(StepCounts(0, {}, {}), {}, progress))
    assert {task: float(weight) for task, weight in weights.items()} == pytest.approx({"pos": expected, "ner": 0.3})
    assert not static.is_constant
    assert not static.state_dict()


def test_pair_of_equal_weights_is_constant():
    assert Static({"pos": (0.3, 0.3)}).is_constant


@pytest.mark.parametrize("weight", [[1.0], [1.0, 0.5, 0.2], ["a", "b"]])
def test_other_lists_are_refused(weight):
    with pytest.raises(ValueError, match=r"`loss_weights\.\w+` should be a number or a pair of numbers\. Found \["):
        Static({"pos": weight})


def test_description_has_the_given_weights():
    assert Static({"pos": 0.3, "ner": [1.0, 0.2]}).describe() == {"pos": 0.3, "ner": [1.0, 0.2]}
