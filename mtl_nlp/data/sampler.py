"""Which rows make which batch: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mtl_nlp.data.mixture import TaskMixture

WINDOW_BATCHES = 50
"""Batches inside which rows are grouped by length: more pads less, fewer is more random."""


class MixtureBatchSampler(Sampler[list[int]]):
    """Batches of a mixture, each with rows of any of its datasets.

    An epoch has as many rows as the mixture. Datasets take turns so that after every row each has had its share
    p_d of the rows so far, to within one row. Each dataset is walked without replacement and reshuffled at each pass,
    and an epoch begins where the one before ended, so every row is reached. Rows are grouped by length inside windows
    of `WINDOW_BATCHES` batches; batches come in random order.

    It has no attribute `batch_size`: accelerate would top up batches that are shorter.

    Args:
        mixture: the datasets, their probabilities and lengths.
        rows_per_batch: rows in a batch; the epoch's last may have fewer.
        seed: the schedule's seed.
    """

    def __init__(self, mixture: TaskMixture, rows_per_batch: int, seed: int = 0) -> None:
        self.mixture = mixture
        self.rows_per_batch = rows_per_batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.mixture) // self.rows_per_batch)

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches, as positions in the mixture."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = self._rows()
        window = self.rows_per_batch * WINDOW_BATCHES
        for start in range(0, len(rows), window):
            inside = rng.permutation(rows[start : start + window])
            inside = inside[np.argsort(self.mixture.lengths[inside], kind="stable")]
            batches = [inside[i : i + self.rows_per_batch] for i in range(0, len(inside), self.rows_per_batch)]
            # A short batch, the epoch's last, stays last: resuming counts in whole batches.
            full = len(inside) // self.rows_per_batch
            for index in [*rng.permutation(full), *range(full, len(batches))]:
                yield batches[index].tolist()

    def _rows(self) -> np.ndarray:
        """The epoch's rows in the order in which the datasets take turns."""
        choices = take_turns(self.mixture.probabilities, len(self.mixture))
        rows = np.empty(len(choices), dtype=np.int64)
        for number, size in enumerate(self.mixture.sizes):
            places = np.flatnonzero(choices == number)
            drawn_before = self.epoch * len(places)
            rows[places] = self.mixture.offsets[number] + self._walk(number, int(size), drawn_before, len(places))
        return rows

    def _walk(self, number: int, size: int, start: int, count: int) -> np.ndarray:
        """`count` rows of a dataset from position `start` of its endless series of shuffled passes."""
        first, last = start // size, (start + count - 1) // size if count else start // size - 1
        passes = [np.random.default_rng([self.seed, number, p]).permutation(size) for p in range(first, last + 1)]
        return np.concatenate([np.empty(0, dtype=np.int64), *passes])[start - first * size :][:count]


def take_turns(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Which dataset each of `count` rows comes from: never a row off its share, without chance.

    The j-th row of dataset d is due at time (j + 1/2) / p_d; rows come in the order in which they are due. (Carrying
    the remainder on, as largest-remainder apportionment of each batch would, but for every length at once.)

    Returns:
        Dataset numbers, shape (count,).
    """
    due, which = [], []
    for number, probability in enumerate(probabilities):
        draws = int(np.ceil(probability * count)) + 1
        due.append((np.arange(draws) + 0.5) / probability)
        which.append(np.full(draws, number))
    return np.concatenate(which)[np.argsort(np.concatenate(due), kind="stable")[:count]]
