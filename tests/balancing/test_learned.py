"""The penalty of weightings with one learned parameter per task."""

from __future__ import annotations

import pytest
import torch

from mtl_nlp import TextClassification
from mtl_nlp.balancing.learned import LearnedWeighting
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts

TASKS = {name: TextClassification(name=name, labels=["x", "y"]) for name in "abc"}


class Ones(LearnedWeighting):
    """A weighting whose term is the position of the task plus its parameter."""

    def __init__(self, learning_rate: float = 0.1) -> None:
        super().__init__(TASKS, learning_rate)
        self.values = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(())) for _ in TASKS])

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        return {}

    def term(self, number: int) -> torch.Tensor:
        return self.values[number] + number


def test_the_penalty_counts_each_task_by_its_share_of_the_rows():
    weighting = Ones()
    penalty = weighting.penalty(WeightingStep(StepCounts(0, {}, {}), {}, shares={"a": 0.5, "b": 0.0, "c": 0.25}))
    assert penalty.item() == pytest.approx(0.5)
    penalty.backward()
    assert [None if value.grad is None else value.grad.item() for value in weighting.values] == [0.5, None, 0.25]
    assert not weighting.penalty(WeightingStep(StepCounts(0, {}, {}), {})).requires_grad


def test_the_learning_rate_is_positive():
    assert (Ones(0.2).learning_rate, Ones().tasks) == (0.2, ["a", "b", "c"])
    with pytest.raises(ValueError, match="`learning_rate` should be finite and above 0"):
        Ones(0.0)
