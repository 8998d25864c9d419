"""GradNorm, gradient normalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from mtl_nlp.balancing.comparing import MovingWeighting, chosen, put
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_not_negative

_SMALL = 1e-12
_LOWEST = 1e-3


class GradNorm(MovingWeighting):
    """Weights that bring the gradients of all tasks on the shared weights to a common norm.

    G_t = w_t · ‖∇_W L_t‖ is the norm of a task's weighted gradient on W, the shared weights of the encoder's last
    layer. r_t = (L_t / L_t(0)) / mean_s (L_s / L_s(0)) is the inverse training rate. After each step, the weights take
    a step of gradient descent on Σ_t |G_t − mean_s(G_s) · r_t^α|, in which the second term is a constant. They are then
    scaled back to their sum, T for T tasks. A weight stays at least 0.001 before the scaling.

    The tasks with labels in the step are compared with each other, and only their weights change. L_t(0) is the loss in
    the first step with labels of the task. The gradients are those of L_t, without the rows' share.

    When to use it: if the gradients of the tasks have very different norms. It measures the imbalance in the shared
    weights, which other weightings guess from the losses. The step is proportional to the norms: for a loss on a
    different scale, such as a regression on large numbers, set a smaller learning rate or use `equal-start`.

    Source: Chen et al. 2018, GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks,
    algorithm 1.

    Args:
        tasks: the tasks by name.
        alpha: α; a larger value trains slow tasks more, 0 gives all gradients the same norm.
        learning_rate: the learning rate of the weights, constant during training.

    Raises:
        ValueError: if there are fewer than two tasks, or a parameter is out of its range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient_norms"})
    values: torch.Tensor
    first_losses: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task], alpha: float = 1.5, learning_rate: float = 0.025) -> None:
        super().__init__(tasks, learning_rate)
        check_not_negative("alpha", alpha)
        self.alpha = alpha
        self.register_buffer("values", torch.ones(len(tasks)))
        self.register_buffer("first_losses", torch.zeros(len(tasks)))  # 0 for a task without a first loss

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the current weights."""
        return dict(zip(self.tasks, self.values.unbind(), strict=True))

    def after_step(self, step: WeightingStep) -> None:
        """Take a step with the weights of the tasks that have labels in the step."""
        numbers = self.numbers_of(step)
        if not numbers:
            return
        losses, norms = self.stacked(step.losses, numbers), self.stacked(step.gradient_norms, numbers)
        first = chosen(self.first_losses, numbers)
        first = torch.where(first > 0, first, losses)
        put(self.first_losses, numbers, first)
        ratios = losses / first.clamp_min(_SMALL)
        rates = ratios / ratios.mean().clamp_min(_SMALL)
        weights = chosen(self.values, numbers)
        scaled = weights * norms
        gradient = (scaled - scaled.mean() * rates**self.alpha).sign() * norms
        moved = (weights - self.rate * gradient).clamp_min(_LOWEST)
        put(self.values, numbers, moved * (weights.sum() / moved.sum()))
