"""Which rows make which batch: a pure function of seed, epoch and number of processes."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mtl_nlp.mixture.mixture import TaskMixture

_BLOCK_ROWS = 4096


class LengthWindow(NamedTuple):
    """Rows that are grouped by length together.

    Attributes:
        number: counted from the start of training.
        drawn: rows drawn from each dataset before, shape (datasets,).
        counts: rows to draw from each dataset now, shape (datasets,).
    """

    number: int
    drawn: np.ndarray
    counts: np.ndarray


class MixtureBatchSampler(Sampler[list[int]]):
    """This process's batches of a mixture.

    All processes plan the same *steps*, each the rows of one batch for every process, and take their share of each:
    rows of like length, in homogeneous batching of the same dataset.

    An epoch has as many rows as the mixture (homogeneous batches: rounded up to full steps). Each dataset is walked
    without replacement and reshuffled at each pass. At the end of every window of `length_window` batches each dataset
    has had its share of the rows so far (homogeneous: of the steps) to within one, and what is left of it is carried
    on, from epoch to epoch too, so every row is reached. Inside a window rows are grouped by length; the steps that
    this makes come in random order.

    With a token budget a batch has as many rows as fit, padding counted, and an epoch as many steps as the tokens of
    all rows fill; its rows are drawn on from where the epoch before stopped.

    It has no attribute `batch_size`, from which accelerate would infer that short batches are to be topped up.

    Args:
        mixture: the datasets, their probabilities and lengths.
        rows_per_batch: rows of one process in a step. Fewer than `num_processes` rows that are left over at the end of
            an epoch go with the step before.
        max_tokens: B · L of a batch at most, in place of `rows_per_batch`.
        seed: the schedule's seed.
        process_index: which process this is.
        num_processes: how many there are.

    Attributes:
        total_batches: over how many batches the mixture's temperature moves; an epoch's unless set.

    Raises:
        ValueError: if there are more processes than rows, or a row is longer than the token budget.
    """

    def __init__(
        self,
        mixture: TaskMixture,
        rows_per_batch: int,
        *,
        max_tokens: int | None = None,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        if mixture.is_streamed and max_tokens is not None:
            raise ValueError(
                "`max_tokens_per_batch` needs the lengths of all rows, which a streamed dataset has not. Leave it out."
            )
        if len(mixture) < num_processes:
            raise ValueError(f"There are {num_processes} processes and only {len(mixture)} rows to train on.")
        self.mixture = mixture
        self.rows_per_batch = rows_per_batch
        self.max_tokens = max_tokens
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.epoch = 0
        self._homogeneous = mixture.batching == "homogeneous"
        self._step_rows = rows_per_batch * num_processes
        # Where the epoch after the last one begins; any other is planned from the start of training.
        self._carried: dict[int, tuple[Iterator[LengthWindow], list[np.ndarray], int]] = {}
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}
        if max_tokens is None:
            self._steps = self.num_steps(len(mixture))
        else:
            self._check_longest(max_tokens)
            mean = [lengths.mean() for lengths in np.split(mixture.lengths, mixture.offsets[1:-1])]
            tokens = len(mixture) * float(mixture.probabilities @ mean)
            self._steps = int(np.ceil(tokens / (max_tokens * num_processes)))
            # Counts of rows that no process is without when they are dealt out.
            self._step_rows = num_processes * max(1, int(max_tokens // (tokens / len(mixture))))
        self.total_batches = self._steps

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch is iterated over."""
        self.epoch = epoch

    def __len__(self) -> int:
        """This process's batches in an epoch: as many as steps."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """This process's batches of the epoch, as positions in the mixture."""
        return (step[self.process_index :: self.num_processes].tolist() for step in self.steps())

    def steps(self) -> Iterator[np.ndarray]:
        """The epoch's steps: the rows of all processes, longest first; process i takes every row i, i + n, …"""
        epoch, left = self.epoch, self._steps
        windows, waiting, skip = self._carried.pop(epoch, (self.windows(), [], epoch * left))
        while left:
            if not waiting:
                window = next(windows)
                # Without a token budget how many steps a window makes is known without looking at its rows.
                if self.max_tokens is None and skip >= (count := self.num_steps(int(window.counts.sum()))):
                    skip -= count
                    continue
                planned = self._steps_of(window)
                waiting, skip = planned[skip:], max(0, skip - len(planned))
            steps, waiting = waiting[:left], waiting[left:]
            left -= len(steps)
            if not left:
                self._carried = {epoch + 1: (windows, waiting, 0)}
            yield from steps

    def num_steps(self, rows: int) -> int:
        """How many steps that many rows make, without a token budget."""
        return count_portions(rows, self._step_rows, self.num_processes)

    def windows(self) -> Iterator[LengthWindow]:
        """All windows from the start of training on, without end."""
        rows_per_turn = self._step_rows if self._homogeneous and self.max_tokens is None else 1
        drawn = np.zeros(len(self.mixture.sizes), dtype=np.int64)
        for number, turns in enumerate(self._turns()):
            if self._homogeneous and self.max_tokens is not None:
                counts = np.array([self._rows_that_fill(d, int(drawn[d]), int(n)) for d, n in enumerate(turns)])
            else:
                counts = turns * rows_per_turn
            yield LengthWindow(number, drawn, counts)
            drawn = drawn + counts

    def _turns(self) -> Iterator[np.ndarray]:
        """For each window how many turns every dataset has: rows, or steps if they are homogeneous."""
        if self._homogeneous:
            turns_per_epoch, turns_per_step, least = self._steps, 1, 1
        else:
            # Under a token budget no epoch ends with rows that are fewer than processes.
            turns_per_epoch = len(self.mixture)
            if self.max_tokens is not None:
                turns_per_epoch = -(-turns_per_epoch // self.num_processes) * self.num_processes
            turns_per_step, least = self._step_rows, self.num_processes
        sizes = portions(turns_per_epoch, turns_per_step * self.mixture.length_window, least)
        total = turns_per_epoch * self.total_batches / self._steps
        due, done = np.zeros(len(self.mixture.sizes)), np.zeros(len(self.mixture.sizes), dtype=np.int64)
        for size in itertools.cycle(sizes):
            probabilities = self.mixture.probabilities_at(min((done.sum() + size / 2) / total, 1.0))
            due = due + probabilities * size
            turns = next_turns(done, due, probabilities, size)
            yield turns
            done = done + turns

    def _steps_of(self, window: LengthWindow) -> list[np.ndarray]:
        """A window's steps in their order."""
        rng = np.random.default_rng([self.seed, window.number])
        pools = [
            self.mixture.offsets[number] + self.walk(number, int(window.drawn[number]), int(window.counts[number]))
            for number in np.flatnonzero(window.counts).tolist()
        ]
        steps: list[np.ndarray] = []
        for pool in pools if self._homogeneous else [np.concatenate(pools)]:
            rows = rng.permutation(pool)
            rows = rows[np.argsort(-self.mixture.lengths[rows], kind="stable")]
            steps += np.split(rows, np.cumsum(self._cut(self.mixture.lengths[rows]))[:-1])
        return [steps[index] for index in rng.permutation(len(steps))]

    def _cut(self, lengths: np.ndarray) -> list[int]:
        """How many rows the steps have that rows of these lengths, longest first, are cut into."""
        if self.max_tokens is None:
            return portions(len(lengths), self._step_rows, self.num_processes)
        sizes, start = [], 0
        while start < len(lengths):
            rows = self.num_processes * int(self.max_tokens // max(1, lengths[start]))
            sizes.append(min(rows, len(lengths) - start))
            start += rows
        return sizes

    def _rows_that_fill(self, number: int, start: int, steps: int) -> int:
        """As many of a dataset's next rows as that many steps hold under the token budget, at most."""
        if steps == 0:
            return 0
        shortest = self._dataset_lengths(number).min()
        most = steps * (self.max_tokens or 0) // max(1, int(shortest))

        def steps_needed(shares: int) -> int:
            rows = self.walk(number, start, shares * self.num_processes)
            return len(self._cut(-np.sort(-self._dataset_lengths(number)[rows])))

        return (bisect_right(range(1, most + 1), steps, key=steps_needed)) * self.num_processes

    def walk(self, number: int, start: int, count: int) -> np.ndarray:
        """`count` rows of a dataset from position `start` of its endless series of shuffled passes."""
        size = int(self.mixture.sizes[number])
        # Passes are shuffled in blocks of several, so that a dataset of few rows costs no more than others.
        passes = -(-_BLOCK_ROWS // size)
        rows = [np.empty(0, dtype=np.int64)]
        position = start
        while position < start + count:
            block, offset = divmod(position, passes * size)
            if self._permutations.get(number, (-1,))[0] != block:
                rng = np.random.default_rng([self.seed, number, block])
                in_order = np.tile(np.arange(size, dtype=np.int32), (passes, 1))
                self._permutations[number] = block, rng.permuted(in_order, axis=1).ravel()
            part = self._permutations[number][1][offset : offset + start + count - position]
            rows.append(part)
            position += len(part)
        return np.concatenate(rows)

    def _dataset_lengths(self, number: int) -> np.ndarray:
        return self.mixture.lengths[self.mixture.offsets[number] : self.mixture.offsets[number + 1]]

    def _check_longest(self, max_tokens: int) -> None:
        longest = int(self.mixture.lengths.argmax())
        if self.mixture.lengths[longest] > max_tokens:
            number = int(np.searchsorted(self.mixture.offsets, longest, side="right")) - 1
            name = list(self.mixture.datasets)[number]
            raise ValueError(
                f"`max_tokens_per_batch` is {max_tokens}, but a row of {name} has {self.mixture.lengths[longest]} "
                f"sub-words (window {longest - self.mixture.offsets[number]}). Raise it, or lower `max_length`."
            )


def count_portions(total: int, size: int, least: int) -> int:
    """How many portions `portions` makes."""
    return max(1, total // size + (total % size >= least))


def portions(total: int, size: int, least: int) -> list[int]:
    """`total` in portions of `size`. What is left makes one more, or goes with the last if it is less than `least`."""
    count = count_portions(total, size, least)
    return [size] * (count - 1) + [total - size * (count - 1)]


def next_turns(done: np.ndarray, due: np.ndarray, rates: np.ndarray, count: int) -> np.ndarray:
    """Give out `count` turns so that no dataset is ever a whole turn off its due, given that it goes on as before.

    First those that are overdue; the rest to those that would be overdue soonest (earliest deadline first, which is
    optimal for such schedules; Tijdeman 1980 for the case of one turn at a time).

    Args:
        done: turns that each dataset has had, shape (datasets,).
        due: turns that each should have had after these, shape (datasets,), with the sum of `done` plus `count`.
        rates: what each becomes due by per turn, shape (datasets,).
        count: how many.

    Returns:
        Turns, shape (datasets,).
    """
    whole = np.floor(due).astype(np.int64)
    turns = np.maximum(whole - done, 0)
    waiting = np.flatnonzero(done + turns < due)
    soonest = waiting[np.argsort((whole + 1 - due)[waiting] / rates[waiting], kind="stable")]
    turns[soonest[: count - turns.sum()]] += 1
    return turns
