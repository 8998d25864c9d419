"""IMTL-L, impartial multitask learning by the losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mtl_nlp.balancing.learned import LearnedWeighting
from mtl_nlp.balancing.scalarized import gradient_weights
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task


class ImtlL(LearnedWeighting):
    """Learned weights that bring all weighted losses to the same value, 1.

    With the learned log scale a_t, which starts at 0, and the share s_t of a step's rows that have a label of task t
    (1 with the scale `per_task`), the loss is Σ_t s_t · (e^(a_t) · L_t − a_t). Its optimum is a_t = −log L_t. Each term
    is an `IMTLL` of torchjd for one task, so that the share multiplies both parts of the term.

    When to use it: as `uncertainty`. At the optimum, the weights of tasks with cross-entropy are twice those of
    `uncertainty`.

    Source: Liu et al. 2021, Towards Impartial Multi-task Learning, section 3.2.

    Args:
        tasks: the tasks by name.
        learning_rate: the learning rate of a, which follows the schedule of the training.

    Raises:
        ValueError: if the learning rate is not positive.
    """

    def __init__(self, tasks: Mapping[str, Task], learning_rate: float = 0.01) -> None:
        from torchjd.scalarization import IMTLL  # an optional package

        super().__init__(tasks, learning_rate)
        self.terms = nn.ModuleList([IMTLL(()) for _ in tasks])

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return e^(a_t), with gradients for tasks that have labels in the step."""
        weights = {}
        for task, term in zip(self.tasks, self.terms, strict=True):
            weight = gradient_weights(term, torch.zeros_like(term.log_scale), is_learned=True)
            weights[task] = weight if step.shares.get(task) else weight.detach()
        return weights

    def term(self, number: int) -> torch.Tensor:
        """Return −a_t, the value for a loss of zero."""
        own = self.terms[number]
        return own(torch.zeros_like(own.log_scale))
