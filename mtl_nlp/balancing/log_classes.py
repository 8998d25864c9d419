"""Weights by the number of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task


class LogClasses(LossWeighting):
    """Constant weights w_t = 1 / log C_t for C_t classes.

    The cross-entropy of a uniform prediction is log C_t, so that all losses start near 1. A decision of a multi-label
    task has two classes. A regression, and a task with fewer than two classes, have the weight 1.

    When to use it: for classification tasks with very different numbers of classes. The weights need no state and no
    measurement.

    Source: Aghajanyan et al. 2021, Muppet: Massive Multi-task Representations with Pre-Finetuning.

    Args:
        tasks: the tasks by name, with their label spaces.
    """

    is_constant = True
    values: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        outcomes = [task.kind.num_outcomes or 0 for task in tasks.values()]
        weights = [1.0 / math.log(number) if number > 1 else 1.0 for number in outcomes]
        self.register_buffer("values", torch.tensor(weights), persistent=False)

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights, scalars in float32."""
        return dict(zip(self.tasks, self.values.unbind(), strict=True))
