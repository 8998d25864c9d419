"""FAMO, fast adaptive multitask optimization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from mtl_nlp.balancing.comparing import MovingWeighting, chosen, put
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_not_negative

_SMALL = 1e-8
_BETAS = (0.9, 0.999)


class Famo(MovingWeighting):
    """Weights that let all losses fall at the same relative rate.

    With z = softmax(ω) over the m tasks of the step, w_t = m · c · z_t / L_t, where c = 1 / Σ_t (z_t / L_t) gives the
    weights the sum m, as in a plain sum. After the step, the losses of the same rows are computed again, and Adam
    moves ω by the gradient (∂z/∂ω)ᵀ δ with δ_t = log L_t(before) − log L_t(after): a task that fell faster than the
    others loses weight.

    The `FAMO` of torchjd has the same formulas, but the state of its Adam is in no state dict, and it updates the tasks
    that have no labels in a step. Here all state is in buffers, and only tasks with labels in the step are updated. The
    losses after the step have the dropout of the step, so that δ measures the step and not the dropout.

    When to use it: if some tasks learn much faster than others, and a second forward pass per step is affordable. All
    losses must be positive.

    Source: Liu, Feng, Stone, Liu 2023, FAMO: Fast Adaptive Multitask Optimization, algorithm 1.

    Args:
        tasks: the tasks by name.
        learning_rate: the learning rate of ω, constant during training.
        weight_decay: γ, which pulls ω towards equal values.

    Raises:
        ValueError: if there are fewer than two tasks, or a parameter is out of its range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses", "second_forward"})
    logits: torch.Tensor
    moments: torch.Tensor
    updates: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task], learning_rate: float = 0.025, weight_decay: float = 0.001) -> None:
        super().__init__(tasks, learning_rate)
        check_not_negative("weight_decay", weight_decay)
        self.weight_decay = weight_decay
        self.register_buffer("logits", torch.zeros(len(tasks)))  # ω
        self.register_buffer("moments", torch.zeros(2, len(tasks)))  # the first and second moments of Adam
        self.register_buffer("updates", torch.zeros(len(tasks)))  # the number of updates of each task

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights of the tasks with labels in the step."""
        numbers = self.numbers_of(step)
        if not numbers:
            return {}
        losses = self.stacked(step.losses, numbers)
        weights = torch.softmax(chosen(self.logits, numbers), dim=0) / (losses + _SMALL)
        weights = len(numbers) * weights / weights.sum()
        return {self.tasks[number]: weight for number, weight in zip(numbers, weights.unbind(), strict=True)}

    def after_step(self, step: WeightingStep) -> None:
        """Update ω of the tasks with labels in the step."""
        numbers = self.numbers_of(step)
        if len(numbers) < 2:
            return
        before, after = (
            torch.log(self.stacked(losses, numbers) + _SMALL) for losses in (step.losses, step.losses_after)
        )
        logits, fallen = chosen(self.logits, numbers), before - after
        shares = torch.softmax(logits, dim=0)
        gradient = shares * (fallen - (shares * fallen).sum()) + self.weight_decay * logits
        powers = (gradient, gradient.square())
        moments = [
            beta * chosen(moment, numbers) + (1 - beta) * power
            for beta, moment, power in zip(_BETAS, self.moments, powers, strict=True)
        ]
        updates = chosen(self.updates, numbers) + 1
        mean, square = (moment / (1 - beta**updates) for moment, beta in zip(moments, _BETAS, strict=True))
        put(self.logits, numbers, logits - self.rate * mean / (square.sqrt() + _SMALL))
        put(self.updates, numbers, updates)
        for moment, new in zip(self.moments, moments, strict=True):
            put(moment, numbers, new)
