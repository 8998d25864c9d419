"""Losses divided by their values at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task

_SMALL = 1e-6


class EqualStart(LossWeighting):
    """Weights w_t = 1 / L_t(0), so that all losses start at 1.

    L_t(0) is the mean of the losses in those of the first `steps` optimizer steps that have labels of task t. Until
    then, L_t(0) is the mean over the steps so far, with the current step: no step has the unscaled loss. Ten steps
    average out the differences between batches, and most losses hardly fall in ten steps. Afterwards, the weights are
    constant, and `weights` needs no measurement.

    A task whose first labels come later has the weight 1 in this step, and then the inverse loss of this step.

    When to use it: for losses on different scales, such as a regression on raw numbers beside classification. It is the
    simplest remedy, and the weights do not depend on how well a task can be learned.

    Source: the loss ratio L_t / L_t(0) of Chen et al. 2018 (GradNorm), as constant weights.

    Args:
        tasks: the tasks by name.
        steps: the number of optimizer steps over which L_t(0) is the mean.

    Raises:
        ValueError: if `steps` is below 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})
    sums: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task], steps: int = 10) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` should be at least 1. Found {steps}.")
        self.tasks = list(tasks)
        self.steps = steps
        self.register_buffer("sums", torch.zeros(2, len(tasks)))  # of losses, and of steps with labels

    def needs_at(self, number: int) -> frozenset[str]:
        """Return the need of losses in the first steps, and no need later."""
        return self.needs if number < self.steps else frozenset()

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the inverse of the mean loss at the start; 1 for a task without a loss so far."""
        total, steps = self._with(step if step.number < self.steps else None)
        weights = torch.where(steps > 0, steps / total.clamp_min(_SMALL), torch.ones_like(total))
        return dict(zip(self.tasks, weights.unbind(), strict=True))

    def after_step(self, step: WeightingStep) -> None:
        """Add the losses of the first steps, and the first loss of a task that comes later."""
        new = self._with(step)
        is_open = True if step.number < self.steps else self.sums[1] == 0
        self.sums.copy_(torch.where(torch.as_tensor(is_open, device=self.sums.device), new, self.sums))

    def _with(self, step: WeightingStep | None) -> torch.Tensor:
        """Return the sums with the losses of a step, shape (2, tasks)."""
        if step is None:
            return self.sums
        nothing = self.sums.new_zeros(2)
        new = [
            torch.stack([step.losses[task], nothing[0] + 1]) if task in step.losses else nothing for task in self.tasks
        ]
        return self.sums + torch.stack(new, dim=1)
