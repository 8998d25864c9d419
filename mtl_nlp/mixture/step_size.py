"""The size of a step: a fixed number of rows, or as many rows as a token budget allows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right

import numpy as np

from mtl_nlp.data.buckets import bucketed
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.turns import count_portions, portions
from mtl_nlp.mixture.walks import DatasetWalks


class StepSize(ABC):
    """The number of rows in a step, which is one batch of every process.

    Attributes:
        num_processes: number of processes. A step has at least one row for each process.
        rows_per_step: number of rows in a full step; an average under a token budget.
        rows_per_epoch: number of rows in an epoch of mixed batches.
        steps_per_epoch: number of steps in an epoch.
    """

    num_processes: int
    rows_per_step: int
    rows_per_epoch: int
    steps_per_epoch: int

    @abstractmethod
    def cut(self, lengths: np.ndarray) -> list[int]:
        """Return the sizes of the steps into which rows are cut.

        Args:
            lengths: number of sub-words of the rows, longest first, shape (rows,).
        """

    @abstractmethod
    def count_steps(self, rows: int) -> int | None:
        """Return the number of steps that rows fill, or None if it depends on the lengths of the rows."""

    @abstractmethod
    def rows_that_fill(self, number: int, start: int, steps: int) -> int:
        """Return the number of a dataset's next rows that fill a number of steps.

        Args:
            number: index of the dataset, counted from 0.
            start: number of rows drawn from the dataset before.
            steps: number of steps.
        """


class FixedRows(StepSize):
    """Steps with a fixed number of rows.

    Args:
        rows_in_epoch: number of rows of all datasets.
        rows_per_batch: number of rows of one process in a step. A remainder of fewer than `num_processes` rows is added
            to the last step.
        num_processes: number of processes.
    """

    def __init__(self, rows_in_epoch: int, rows_per_batch: int, num_processes: int) -> None:
        self.num_processes = num_processes
        self.rows_per_step = rows_per_batch * num_processes
        self.rows_per_epoch = rows_in_epoch
        self.steps_per_epoch = self.count_steps(rows_in_epoch)

    def cut(self, lengths: np.ndarray) -> list[int]:
        """Return the sizes of the steps into which rows are cut."""
        return portions(len(lengths), self.rows_per_step, self.num_processes)

    def count_steps(self, rows: int) -> int:
        """Return the number of steps that rows fill."""
        return count_portions(rows, self.rows_per_step, self.num_processes)

    def rows_that_fill(self, number: int, start: int, steps: int) -> int:
        """Return the number of a dataset's next rows that fill a number of steps."""
        return steps * self.rows_per_step


class TokenBudget(StepSize):
    """Steps with as many rows as fit into a number of sub-words, including padding.

    Args:
        mixture: the datasets with the lengths of all rows.
        max_tokens: the largest B · L of one process's batch.
        num_processes: number of processes.
        walks: the order of the rows.
        bucket_limit: the largest length to which batches are padded in buckets, see `bucketed`; None without buckets.

    Raises:
        ValueError: if a row is longer than the budget.
    """

    def __init__(
        self,
        mixture: TaskMixture,
        max_tokens: int,
        num_processes: int,
        walks: DatasetWalks,
        bucket_limit: int | None = None,
    ) -> None:
        _check_longest(mixture, max_tokens)
        self._bucket_limit = bucket_limit or 0
        self.num_processes = num_processes
        self._max_tokens = max_tokens
        self._lengths = np.split(mixture.lengths, mixture.offsets[1:-1])
        self._walks = walks
        tokens = len(mixture) * float(mixture.probabilities @ [lengths.mean() for lengths in self._lengths])
        self.steps_per_epoch = int(np.ceil(tokens / (max_tokens * num_processes)))
        # Multiples of `num_processes`, so that every process has a row in every step.
        self.rows_per_step = num_processes * max(1, int(max_tokens // (tokens / len(mixture))))
        self.rows_per_epoch = -(-len(mixture) // num_processes) * num_processes

    def cut(self, lengths: np.ndarray) -> list[int]:
        """Return the sizes of the steps into which rows are cut."""
        sizes, start = [], 0
        while start < len(lengths):
            padded = max(1, int(lengths[start]))
            padded = bucketed(padded, self._bucket_limit) if self._bucket_limit else padded
            rows = self.num_processes * (self._max_tokens // padded)
            sizes.append(min(rows, len(lengths) - start))
            start += rows
        return sizes

    def count_steps(self, rows: int) -> None:
        """Return None, since the number of steps depends on the lengths of the rows."""
        return

    def rows_that_fill(self, number: int, start: int, steps: int) -> int:
        """Return the largest number of a dataset's next rows that fit into a number of steps."""
        if steps == 0:
            return 0
        lengths = self._lengths[number]
        most = steps * self._max_tokens // max(1, int(lengths.min()))

        def steps_needed(rows_per_process: int) -> int:
            rows = self._walks.rows(number, start, rows_per_process * self.num_processes)
            return len(self.cut(-np.sort(-lengths[rows])))

        return bisect_right(range(1, most + 1), steps, key=steps_needed) * self.num_processes


def _check_longest(mixture: TaskMixture, max_tokens: int) -> None:
    longest = int(mixture.lengths.argmax())
    if mixture.lengths[longest] > max_tokens:
        number = int(np.searchsorted(mixture.offsets, longest, side="right")) - 1
        raise ValueError(
            f"`max_tokens_per_batch` is {max_tokens}, but a row of {list(mixture.datasets)[number]} has "
            f"{mixture.lengths[longest]} sub-words (window {longest - mixture.offsets[number]}). Raise "
            f"`max_tokens_per_batch`, or lower `max_length`."
        )
