"""Learned loss weightings, written as a user would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep


class Uncertainty(LossWeighting):
    """w_t = exp(−s_t) with the penalty ½ Σ_t s_t."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.log_variances = nn.Parameter(torch.linspace(-0.5, 0.5, len(self.tasks)))

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        return dict(zip(self.tasks, torch.exp(-self.log_variances).unbind(), strict=True))

    def penalty(self, step: WeightingStep) -> torch.Tensor:
        return 0.5 * self.log_variances.sum()


class Attentive(Uncertainty):
    """`Uncertainty`, with weights that also grow with the losses of this step beside a mean of those before."""

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})
    means: torch.Tensor

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer("means", torch.ones(len(self.tasks)))

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        plain, means = super().weights(step), dict(zip(self.tasks, self.means.unbind(), strict=True))
        return {task: plain[task] * (1.0 + loss / means[task]) for task, loss in step.losses.items()}

    def after_step(self, step: WeightingStep) -> None:
        for number, task in enumerate(self.tasks):
            if task in step.losses:
                self.means[number] = 0.5 * self.means[number] + 0.5 * step.losses[task]


class Watching(LossWeighting):
    """No weights but 1; writes down the losses of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[WeightingStep] = []

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        assert not step.losses
        return {}

    def after_step(self, step: WeightingStep) -> None:
        self.seen.append(step)
