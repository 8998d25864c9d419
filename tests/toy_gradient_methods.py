"""Gradient methods for tests, written as a user would write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtl_nlp.balancing.gradients import GradientMethod


class PlainSum(GradientMethod):
    """c_t = 1: the update of a training without a gradient method."""

    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        return torch.ones(len(rows))


class Watching(PlainSum):
    """The plain sum, with a copy of the gradients of each step."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.seen: list[dict[str, torch.Tensor]] = []

    def combine(self, gradients, gramian, rows, *, seed=0):
        self.seen.append({self.tasks[row]: each.clone() for row, each in zip(rows, gradients, strict=True)})
        return super().combine(gradients, gramian, rows, seed=seed)
