"""Sequences of numbers of different lengths in one flat array, so that a batch needs no Python object per number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

import numpy as np


class Ragged(Sequence[np.ndarray]):
    """Sequences of numbers, or of vectors of numbers, one after the other in one array.

    Args:
        data: the numbers of all sequences, shape (numbers,) or (vectors, size of a vector).
        offsets: the start of each sequence in `data` and the end of the last one, shape (sequences + 1,). The first
            offset may be greater than zero, as in a slice of an Arrow column.

    Examples:
        >>> from mtl_nlp.modeling.ragged_multitask import Ragged
        >>> ragged = Ragged.of([[3, 4], [], [5]])
        >>> ragged.values.tolist(), ragged.sizes.tolist()
        ([3, 4, 5], [2, 0, 1])
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self._data = data
        self._offsets = offsets

    @classmethod
    def of(cls, sequences: Sequence[Any] | np.ndarray, dtype: Any = np.int64) -> Ragged:
        """Return sequences of numbers in one array; a [`Ragged`] stays as it is."""
        if isinstance(sequences, Ragged):
            return sequences
        arrays = [np.asarray(sequence, dtype=dtype) for sequence in sequences]
        offsets = np.cumsum([0, *map(len, arrays)])
        return cls(np.concatenate([np.empty(0, dtype=dtype), *arrays]), offsets)

    @classmethod
    def stacked(cls, arrays: Sequence[np.ndarray] | np.ndarray) -> Ragged:
        """Return one or more arrays as sequences along their first axis; a [`Ragged`] stays as it is."""
        if isinstance(arrays, Ragged):
            return arrays
        data = np.asarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)
        return cls(data, np.cumsum([0, *map(len, arrays)]))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return the sequences of several parts, one after the other."""
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Ragged:
        """Return a sequence, or some of the sequences."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = range(len(self))[index]
        return self._data[self._offsets[place] : self._offsets[place + 1]]

    @property
    def values(self) -> np.ndarray:
        """The numbers of all sequences, shape (numbers,)."""
        return self._data[self._offsets[0] : self._offsets[-1]]

    @cached_property
    def sizes(self) -> np.ndarray:
        """The length of each sequence, shape (sequences,)."""
        return np.diff(self._offsets)

    @property
    def numbers(self) -> np.ndarray:
        """The index of the sequence of each value, shape (numbers,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, indices: np.ndarray) -> Ragged:
        """Return the sequences at some indices, in their order.

        Args:
            indices: shape (chosen,).
        """
        starts, sizes = self._offsets[indices], self.sizes[indices]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return Ragged(self._data[places], offsets)

    def replaced(self, data: np.ndarray) -> Ragged:
        """Return sequences of the same lengths with different numbers, shape (numbers, ...)."""
        return Ragged(data, self._offsets - self._offsets[0])

    def grouped(self, counts: np.ndarray) -> Ragged:
        """Return sequences of which each consists of several neighbouring ones.

        Args:
            counts: the number of sequences in each group, in their order, shape (groups,).
        """
        return Ragged(self._data, self._offsets[np.concatenate([[0], np.cumsum(counts)])])

    def padded(self, fill: float, length: int | None = None) -> np.ndarray:
        """Return the sequences in one array, padded on the right, shape (sequences, length, ...).

        Args:
            fill: the number at all other positions.
            length: by default, the length of the longest sequence.
        """
        values, sizes = self.values, self.sizes
        length = int(sizes.max(initial=0)) if length is None else length
        padded = np.full((len(self), length, *values.shape[1:]), fill, dtype=values.dtype)
        padded[np.arange(length) < sizes[:, None]] = values
        return padded

    def split(self, items: Sequence[Any]) -> list[Any]:
        """Return the parts of a sequence of Python objects, one object per number, that belong to each sequence."""
        ends = (self._offsets - self._offsets[0]).tolist()
        return [items[start:end] for start, end in pairwise(ends)]
