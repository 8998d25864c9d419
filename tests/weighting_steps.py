"""Measurements of steps for the tests of loss weightings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from toy_splits import TASKS

from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts

NOTHING = WeightingStep(StepCounts(0, {}, {}), {})


def step_of(losses: Mapping[str, float], *, shares: Mapping[str, float] | None = None, **more: Any) -> WeightingStep:
    """Build a step from the losses of its tasks; `gradient_norms` and `losses_after` may be numbers too."""
    tensors = {
        key: {task: torch.tensor(float(number)) for task, number in value.items()}
        for key, value in {"losses": losses, **more}.items()
        if isinstance(value, Mapping)
    }
    counts = {task: int(task in losses) for task in TASKS}
    numbers = {key: value for key, value in more.items() if key not in tensors}
    every = {**dict.fromkeys(TASKS, 0.0), **(dict.fromkeys(losses, 1.0) if shares is None else shares)}
    return WeightingStep(StepCounts(1, counts, counts), shares=every, **tensors, **numbers)


def numbers_of(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {task: weight.item() for task, weight in weights.items()}
