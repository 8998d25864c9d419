"""Batches of rows from any dataset, or from one dataset each: what a turn of a dataset is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from mtl_nlp.mixture.step_size import StepSize


class Batching(ABC):
    """The unit in which datasets take turns, and which rows are batched together.

    Attributes:
        turns_per_epoch: turns of all datasets in an epoch.
        turns_per_step: turns of all datasets in a step.
        least: the smallest number of turns that may make a window at the end of an epoch.
    """

    turns_per_epoch: int
    turns_per_step: int
    least: int

    @abstractmethod
    def counts(self, turns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return the rows that the datasets' turns draw.

        Args:
            turns: turns of each dataset, shape (datasets,).
            drawn: rows drawn from each dataset before, shape (datasets,).

        Returns:
            Rows of each dataset, shape (datasets,).
        """

    @abstractmethod
    def pools(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the groups of rows from which steps are cut, given the rows of each dataset."""


class Mixed(Batching):
    """Batches of rows from any dataset: a turn is a row."""

    def __init__(self, size: StepSize) -> None:
        self.turns_per_epoch = size.rows_per_epoch
        self.turns_per_step = size.rows_per_step
        self.least = size.num_processes

    def counts(self, turns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return the rows that the datasets' turns draw: one per turn."""
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
        """Return the rows that the datasets' turns draw: as many as fill the steps."""
        return np.array([self._size.rows_that_fill(d, int(drawn[d]), int(steps)) for d, steps in enumerate(turns)])

    def pools(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return a group for each dataset."""
        return list(rows)
