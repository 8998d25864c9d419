"""The base of the weightings that compare tasks, which need at least two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import check_positive


class ComparingWeighting(LossWeighting):
    """A weighting that compares tasks: the weights of the tasks depend on each other.

    Args:
        tasks: the tasks by name.

    Attributes:
        tasks: the names of the tasks.

    Raises:
        ValueError: if there are fewer than two tasks.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        if len(tasks) < 2:
            raise ValueError(
                f"{type(self).__name__} compares tasks, and needs two. Found {', '.join(tasks) or 'none'}. Train with "
                f"a static weighting."
            )
        self.tasks = list(tasks)

    @classmethod
    def compares_within_steps(cls) -> bool:
        """Return whether the method compares the tasks of one step, so that steps with a single task do not train it.

        Such a method reads measurements of the step.
        """
        return bool(cls.needs)

    def numbers_of(self, step: WeightingStep) -> list[int]:
        """Return the positions in `tasks` of the tasks with losses in a step."""
        return [number for number, task in enumerate(self.tasks) if task in step.losses]


class MovingWeighting(ComparingWeighting):
    """A comparing weighting that moves its weights itself, after each step and with a constant learning rate.

    Args:
        tasks: the tasks by name.
        rate: the learning rate of the weights.

    Raises:
        ValueError: if there are fewer than two tasks, or the learning rate is not positive.
    """

    def __init__(self, tasks: Mapping[str, Task], rate: float) -> None:
        super().__init__(tasks)
        check_positive("learning_rate", rate)
        self.rate = rate

    def stacked(self, measured: Mapping[str, torch.Tensor], numbers: Sequence[int]) -> torch.Tensor:
        """Return the measured scalars of the tasks at some positions as a vector."""
        return torch.stack([measured[self.tasks[number]] for number in numbers])


def chosen(values: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """Return the entries of a vector at some positions, without a copy of the positions to the device."""
    return torch.stack([values[number] for number in numbers])


def put(values: torch.Tensor, numbers: Sequence[int], new: torch.Tensor) -> None:
    """Replace the entries of a vector at some positions in place; `new` has shape (positions,)."""
    for number, value in zip(numbers, new.unbind(), strict=True):
        values[number] = value
