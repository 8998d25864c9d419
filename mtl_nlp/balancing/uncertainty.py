"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mtl_nlp.balancing.learned import LearnedWeighting
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task


class Uncertainty(LearnedWeighting):
    """Learned weights by the homoscedastic uncertainty of each task.

    With the learned log variance η_t = log σ_t², which starts at 0, and the share s_t of a step's rows that have a
    label of task t (1 with the scale `per_task`), the loss is

        Σ_t s_t · (e^(−η_t) · L_t + ½ η_t)      for tasks with cross-entropy
        Σ_t s_t · (½ e^(−η_t) · L_t + ½ η_t)    for regression with the squared error

    The optimum of η_t given L_t is log 2 L_t and log L_t. The share multiplies both terms, so that the optimum does not
    depend on how rare the task is, and a step without labels of the task does not move η_t. `UW` of torchjd has the
    second form for every loss, and no shares.

    When to use it: for tasks whose losses have different scales, such as a regression beside classification. Each
    weight depends on the loss of its own task only, and a task with a small loss gets a large weight, also if the
    loss is small because the task is overfitted.

    Source: Kendall, Gal, Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics, equations 7 and 10.

    Args:
        tasks: the tasks by name.
        learning_rate: the learning rate of η, which follows the schedule of the training. A learning rate for an
            encoder would hardly move η: Adam moves a parameter by at most the learning rate per step.

    Raises:
        ValueError: if the learning rate is not positive.
    """

    def __init__(self, tasks: Mapping[str, Task], learning_rate: float = 0.01) -> None:
        super().__init__(tasks, learning_rate)
        self._factors = [0.5 if task.kind.num_outcomes is None else 1.0 for task in tasks.values()]
        # One parameter per task: without a gradient, the optimizer does not move the parameter of an absent task.
        self.log_variances = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in tasks])

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return e^(−η_t), times ½ for regression; with gradients for tasks that have labels in the step."""
        return {
            task: factor * torch.exp(-(value if step.shares.get(task) else value.detach()))
            for task, factor, value in zip(self.tasks, self._factors, self.log_variances, strict=True)
        }

    def term(self, number: int) -> torch.Tensor:
        """Return ½ η_t."""
        return 0.5 * self.log_variances[number]
