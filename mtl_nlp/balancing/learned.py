"""The base of the weightings with one learned parameter per task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_positive


class LearnedWeighting(LossWeighting):
    """A weighting whose weights and penalty depend on one learned parameter per task.

    The penalty of a task is multiplied by s_t, the share of a step's rows that have a label of the task, as the loss of
    the task is. The optimum of the parameter then does not depend on how rare the task is.

    Args:
        tasks: the tasks by name.
        learning_rate: the learning rate of the parameters, which follows the schedule of the training.

    Attributes:
        tasks: the names of the tasks.

    Raises:
        ValueError: if the learning rate is not positive.
    """

    def __init__(self, tasks: Mapping[str, Task], learning_rate: float) -> None:
        super().__init__()
        check_positive("learning_rate", learning_rate)
        self.tasks = list(tasks)
        self.learning_rate = learning_rate

    @abstractmethod
    def term(self, number: int) -> torch.Tensor:
        """Return the penalty of a task without the factor s_t, a scalar, from its position in `tasks`."""

    def penalty(self, step: WeightingStep) -> torch.Tensor:
        """Return Σ_t s_t · term_t over the tasks with labels in the step."""
        terms = [
            share * self.term(number)
            for number, task in enumerate(self.tasks)
            if (share := step.shares.get(task))  # without labels in the step, the parameter gets no gradient
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())
