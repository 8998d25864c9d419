"""Constant loss weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.recipe.checks import check_loss_weights


class Static(LossWeighting):
    """A weighting with constant weights and without a state in checkpoints.

    Args:
        weights: the weight of each task by name; 1 for a task that is not named.

    Raises:
        ValueError: if a weight is negative or not finite.
    """

    is_constant: ClassVar[bool] = True
    values: torch.Tensor

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        weights = dict(weights or {})
        check_loss_weights(weights)
        self.tasks = list(weights)
        self.register_buffer("values", torch.tensor(list(weights.values()), dtype=torch.float32), persistent=False)

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the given weights, scalars in float32."""
        return dict(zip(self.tasks, self.values.unbind(), strict=True))
