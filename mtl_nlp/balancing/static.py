"""Loss weights that are given before the training: constant weights, and weights that move linearly."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.recipe.checks import LossWeight, check_loss_weights, ends_of


class Static(LossWeighting):
    """A weighting with given weights and without a state in checkpoints.

    Args:
        weights: the weight of each task by name; 1 for a task that is not named. A pair moves linearly from its first
            value at the start of training to its second value at the end.

    Raises:
        ValueError: if a weight is negative or not finite, or is neither a number nor a pair of numbers.
    """

    starts: torch.Tensor
    ends: torch.Tensor

    def __init__(self, weights: Mapping[str, LossWeight] | None = None) -> None:
        super().__init__()
        weights = dict(weights or {})
        check_loss_weights(weights)
        self.tasks = list(weights)
        self.given = {task: ends_of(weight) for task, weight in weights.items()}
        pairs = self.given.values()
        self.is_constant = all(start == end for start, end in pairs)
        for number, name in enumerate(("starts", "ends")):
            values = torch.tensor([pair[number] for pair in pairs], dtype=torch.float32)
            self.register_buffer(name, values, persistent=False)

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights at the step's progress, scalars in float32."""
        values = self.starts if self.is_constant else torch.lerp(self.starts, self.ends, step.progress)
        return dict(zip(self.tasks, values.unbind(), strict=True))

    def describe(self) -> dict[str, float | list[float]]:
        """Return the weight of each task that has been given, a pair for a weight that moves."""
        return {task: start if start == end else [start, end] for task, (start, end) in self.given.items()}
