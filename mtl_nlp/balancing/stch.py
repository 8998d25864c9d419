"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.scalarized import gradient_weights
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_positive


class SmoothTchebycheff(ComparingWeighting):
    """Weights that follow the largest loss: a smooth form of minimising the maximum over the tasks.

    With m tasks in the step, f = μ log Σ_t exp(L_t / (m μ)), the `STCH` of torchjd with equal preferences. The weights
    are ∂f/∂L_t, scaled to the sum m, which is the sum of the weights of a plain sum: w_t = m · softmax(L_t / (m μ)).

    When to use it: if the worst task matters most, and the losses have the same unit. A task that is hard by nature
    keeps a large loss, and gets the largest weight in the complete training.

    Source: Lin et al. 2024, Smooth Tchebycheff Scalarization for Multi-Objective Optimization.

    Args:
        tasks: the tasks by name.
        mu: μ; a smaller value moves more weight to the largest loss.

    Raises:
        ValueError: if there are fewer than two tasks, or μ is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __init__(self, tasks: Mapping[str, Task], mu: float = 0.5) -> None:
        from torchjd.scalarization import STCH  # an optional package

        super().__init__(tasks)
        check_positive("mu", mu)
        self.scalarizer = STCH(mu)

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights of the tasks with labels in the step."""
        if not step.losses:
            return {}
        weights = gradient_weights(self.scalarizer, torch.stack(list(step.losses.values())))
        return dict(zip(step.losses, (weights * (len(weights) / weights.sum())).unbind(), strict=True))
