"""Dynamic weight average."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.scalarized import gradient_weights
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_positive


class DynamicWeightAverage(ComparingWeighting):
    """Larger weights for tasks whose losses fall more slowly.

    In epoch e, w_t = T · softmax(r_t / K) with r_t = L_t(e−1) / L_t(e−2), where T is the number of tasks, K the
    temperature, and L_t(e) the mean of the loss over the steps of epoch e that have labels of task t. The weights are 1
    in the first two epochs, so the method needs at least three. The `DWA` of torchjd computes the weights from the two
    means. The means are buffers of this class, since the state dict of `DWA` is empty, and since `DWA` counts every
    step for every task.

    When to use it: for long trainings with tasks that learn at different speeds. It costs nothing.

    Source: Liu, Johns, Davison 2019, End-to-End Multi-Task Learning with Attention.

    Args:
        tasks: the tasks by name.
        temperature: K; a larger value makes the weights more equal.

    Raises:
        ValueError: if there are fewer than two tasks, or the temperature is not positive.
    """

    sums: torch.Tensor
    means: torch.Tensor
    epoch: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task], temperature: float = 2.0) -> None:
        from torchjd.scalarization import DWA  # an optional package

        super().__init__(tasks)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self._scalarizer = DWA
        # The sum of each task's losses in this epoch, and the number of steps with labels of the task.
        self.register_buffer("sums", torch.zeros(2, len(tasks)))
        self.register_buffer("means", torch.zeros(2, len(tasks)))  # of the two epochs before; 0 for unknown means
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights of the epoch."""
        older, newer = self._at(step.epoch)[1].unbind()
        newer = torch.where(newer > 0, newer, torch.ones_like(newer))
        older = torch.where(older > 0, older, newer)
        scalarizer = self._scalarizer(self.temperature)
        for means in (older, newer):
            scalarizer(means)
            scalarizer.step()
        return dict(zip(self.tasks, gradient_weights(scalarizer, newer).unbind(), strict=True))

    def after_step(self, step: WeightingStep) -> None:
        """Add the losses to the sums of the epoch."""
        sums, means = self._at(step.epoch)
        nothing = sums.new_zeros(2)
        new = [
            torch.stack([step.losses[task], nothing[0] + 1]) if task in step.losses else nothing for task in self.tasks
        ]
        self.sums.copy_(sums + torch.stack(new, dim=1))
        self.means.copy_(means)
        self.epoch.fill_(step.epoch)

    def _at(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sums and the means at an epoch. A task without labels in the last epoch keeps its mean."""
        is_over = self.epoch < epoch  # a tensor, so that the host does not wait for the device
        total, steps = self.sums.unbind()
        mean = torch.where(steps > 0, total / steps.clamp_min(1), self.means[1])
        means = torch.where(is_over, torch.stack([self.means[1], mean]), self.means)
        return torch.where(is_over, torch.zeros_like(self.sums), self.sums), means
