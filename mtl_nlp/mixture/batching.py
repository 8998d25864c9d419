"""Batches of rows from any dataset or from one dataset, and the unit in which datasets take turns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from mtl_nlp.mixture.step_size import StepSize


class Batching(ABC):
    """The unit in which datasets take turns, and the rows that are batched together.

    Attributes:
        turns_per_epoch: number of turns of all datasets in an epoch.
        turns_per_step: number of turns of all datasets in a step.
        least: the smallest number of turns that can form a window at the end of an epoch.
    """

    turns_per_epoch: int
    turns_per_step: int
    least: int

    @abstractmethod
    def counts(self, turns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return the number of rows that the turns of each dataset draw.

        Args:
            turns: number of turns of each dataset, shape (datasets,).
            drawn: number of rows drawn from each dataset before these turns, shape (datasets,).

        Returns:
            The number of rows of each dataset, shape (datasets,).
        """

    @abstractmethod
    def pools(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the groups of rows to cut into steps, given the rows of each dataset."""


class Mixed(Batching):
    """Batches of rows from any dataset: a turn is a row."""

    def __init__(self, size: StepSize) -> None:
        self.turns_per_epoch = size.rows_per_epoch
        self.turns_per_step = size.rows_per_step
        self.least = size.num_processes

    def counts(self, turns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return the number of rows that the turns of each dataset draw: one row per turn."""
        return turns

    def pools(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return one group with the rows of all datasets."""
        return [np.concatenate(rows)]


class Homogeneous(Batching):
    """Batches of rows from one dataset, the same dataset in all processes: a turn is a step."""

    def __init__(self, size: StepSize) -> None:
        self._size = size
        self.turns_per_epoch = size.steps_per_epoch
        self.turns_per_step = 1
        self.least = 1

    def counts(self, turns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return the number of rows that the turns of each dataset draw: enough to fill the steps."""
        return np.array([self._size.rows_that_fill(d, int(drawn[d]), int(steps)) for d, steps in enumerate(turns)])

    def pools(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return one group per dataset."""
        return list(rows)
