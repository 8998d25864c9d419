"""The assignment of rows to batches, a pure function of seed, epoch and number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mtl_nlp.data.rows import ShareOfStep
from mtl_nlp.mixture.batching import Batching, Homogeneous, Mixed
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.step_size import FixedRows, StepSize, TokenBudget
from mtl_nlp.mixture.turns import next_turns, portions
from mtl_nlp.mixture.walks import DatasetWalks


class LengthWindow(NamedTuple):
    """A part of the schedule inside which rows are grouped by length.

    Attributes:
        number: the window's number, counted from the start of training.
        drawn: number of rows drawn from each dataset before this window, shape (datasets,).
        counts: number of rows to draw from each dataset in this window, shape (datasets,).
    """

    number: int
    drawn: np.ndarray
    counts: np.ndarray


class MixtureBatchSampler(Sampler[list[int]]):
    """The batches that one process takes from a mixture.

    All processes plan the same *steps*. A step holds the rows of one batch for every process, and each process takes
    its share of the step. The rows of a step have similar lengths, and with homogeneous batches come from one dataset.

    An epoch has as many rows as the mixture; with homogeneous batches this number is rounded up to full steps. Each
    dataset is visited without replacement and reshuffled at each pass. At the end of every window of `length_window`
    batches, the rows drawn from each dataset (with homogeneous batches: the steps) differ by less than one from the
    dataset's share. The remainder is carried to the next window and epoch, so every row is reached. Inside a window
    rows are grouped by length, and the resulting steps are shuffled.

    With a token budget a batch has as many rows as fit, including padding, and an epoch has as many steps as the tokens
    of all rows fill. The next epoch continues where the last epoch stopped.

    The sampler has no attribute `batch_size`, since accelerate would fill up short batches to that size.

    Args:
        mixture: the datasets, their probabilities and lengths.
        rows_per_batch: number of rows of one process in a step. A remainder of fewer than `num_processes` rows at the
            end of an epoch is added to the last step.
        max_tokens: largest B · L of a batch, instead of `rows_per_batch`.
        bucket_limit: the largest L to which batches are padded in buckets, see `bucketed`; None without buckets.
        seed: seed of the schedule.
        process_index: index of this process, counted from 0.
        num_processes: number of processes.

    Attributes:
        step_size: the size of the steps.
        total_batches: number of batches over which the temperature of the mixture changes; the batches of one epoch by
            default.
        gaps: the gaps of the datasets in each epoch, see `TaskMixture.probabilities_at`; None for an epoch without
            gaps, such as those after the end of the list. An epoch depends on the gaps of all epochs before.

    Raises:
        ValueError: if there are more processes than rows, a row is longer than the token budget, or a token budget
            meets a streamed dataset or a mixture with headroom.
    """

    step_size: StepSize

    def __init__(
        self,
        mixture: TaskMixture,
        rows_per_batch: int,
        *,
        max_tokens: int | None = None,
        bucket_limit: int | None = None,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        if mixture.is_streamed and max_tokens is not None:
            raise ValueError(
                "`max_tokens_per_batch` needs the lengths of all rows, which are unknown for a streamed dataset. "
                "Leave out `max_tokens_per_batch` or `streaming`."
            )
        if mixture.headroom and max_tokens is not None:
            raise ValueError(
                "`max_tokens_per_batch` cannot be combined with `headroom`, since the number of steps in an epoch "
                "would change with the probabilities. Leave out one of the two."
            )
        if len(mixture) < num_processes:
            raise ValueError(
                f"There are {num_processes} processes and only {len(mixture)} rows to train on. Use fewer processes."
            )
        self.mixture = mixture
        self.rows_per_batch = rows_per_batch
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.epoch = 0
        self.gaps: list[np.ndarray | None] = []
        self._walks = DatasetWalks(mixture.sizes, seed)
        if max_tokens is None:
            self.step_size = FixedRows(len(mixture), rows_per_batch, num_processes)
        else:
            self.step_size = TokenBudget(mixture, max_tokens, num_processes, self._walks, bucket_limit)
        is_homogeneous = mixture.batching == "homogeneous"
        self._batching: Batching = Homogeneous(self.step_size) if is_homogeneous else Mixed(self.step_size)
        # State at the end of the last epoch, for the next epoch. Other epochs are planned from the start of training.
        self._carried: dict[int, tuple[Iterator[LengthWindow], list[np.ndarray], int]] = {}
        self.total_batches = self.step_size.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of this process's batches in an epoch, which is the number of steps."""
        return self.step_size.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's batches of the epoch, as positions in the mixture.

        With several processes, a batch also knows the rows of the other processes.
        """
        if self.num_processes == 1:
            return (step.tolist() for step in self.steps())
        return (ShareOfStep(step, self.process_index, self.num_processes) for step in self.steps())

    def steps(self) -> Iterator[np.ndarray]:
        """Yield the steps of the epoch: the rows of all processes, longest first. Process i takes rows i, i + n, …"""
        epoch, left = self.epoch, len(self)
        windows, waiting, skip = self._carried.pop(epoch, (self.windows(), [], epoch * left))
        while left:
            if not waiting:
                window = next(windows)
                # Without a token budget the number of steps in a window is known without planning them.
                count = self.step_size.count_steps(int(window.counts.sum()))
                if count is not None and skip >= count:
                    skip -= count
                    continue
                planned = self._steps_of(window)
                waiting, skip = planned[skip:], max(0, skip - len(planned))
            steps, waiting = waiting[:left], waiting[left:]
            left -= len(steps)
            if not left:
                self._carried = {epoch + 1: (windows, waiting, 0)}
            yield from steps

    def windows(self) -> Iterator[LengthWindow]:
        """Yield the windows of the schedule from the start of training, without end."""
        drawn = np.zeros(len(self.mixture.sizes), dtype=np.int64)
        for number, turns in enumerate(self._turns()):
            counts = self._batching.counts(turns, drawn)
            yield LengthWindow(number, drawn, counts)
            drawn = drawn + counts

    def walk(self, number: int, start: int, count: int) -> np.ndarray:
        """Return `count` rows of a dataset from position `start` of its endless series of shuffled passes."""
        return self._walks.rows(number, start, count)

    def _turns(self) -> Iterator[np.ndarray]:
        """Yield the number of turns of every dataset in each window."""
        in_epoch = self._batching.turns_per_epoch
        sizes = portions(in_epoch, self._batching.turns_per_step * self.mixture.length_window, self._batching.least)
        total = in_epoch * self.total_batches / len(self)
        due, done = np.zeros(len(self.mixture.sizes)), np.zeros(len(self.mixture.sizes), dtype=np.int64)
        for number, size in enumerate(itertools.cycle(sizes)):
            epoch = number // len(sizes)
            gaps = self.gaps[epoch] if epoch < len(self.gaps) else None
            probabilities = self.mixture.probabilities_at(min((done.sum() + size / 2) / total, 1.0), gaps)
            due = due + probabilities * size
            turns = next_turns(done, due, probabilities, size)
            yield turns
            done = done + turns

    def _steps_of(self, window: LengthWindow) -> list[np.ndarray]:
        """Return the steps of a window in the order of training."""
        rng = np.random.default_rng([self.seed, window.number])
        rows = [
            self.mixture.offsets[number] + self.walk(number, int(window.drawn[number]), int(window.counts[number]))
            for number in np.flatnonzero(window.counts).tolist()
        ]
        steps: list[np.ndarray] = []
        for pool in self._batching.pools(rows):
            shuffled = rng.permutation(pool)
            by_length = shuffled[np.argsort(-self.mixture.lengths[shuffled], kind="stable")]
            steps += np.split(by_length, np.cumsum(self.step_size.cut(self.mixture.lengths[by_length]))[:-1])
        return [steps[index] for index in rng.permutation(len(steps))]
