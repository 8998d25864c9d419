"""Rows of encoded datasets as columns of flat arrays, gathered from Arrow without a Python object per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset

from mtl_nlp.modeling.ragged_multitask import Ragged

SOURCE = "source"
"""The column of a mixture's rows with the number of the row's dataset."""

_COPIED_BYTES = 64 * 2**20
"""The size up to which the chunks of a table are copied to one chunk, from which a batch is gathered at once."""


class Column(NamedTuple):
    """A column of some rows.

    Attributes:
        rows: the indices of the rows that have a value, ascending, shape (n,).
        values: the n values: numbers of shape (n,), or n lists of numbers.
    """

    rows: np.ndarray
    values: np.ndarray | Ragged


class _Chunk:
    """The columns of a record batch as arrays without copies; columns without nulls have no mask."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.columns = {name: _as_arrays(batch.column(name)) for name in batch.schema.names}

    def read(self, indices: np.ndarray, names: Set[str]) -> dict[str, Column]:
        """Return the named columns, as far as they exist, of the rows at some indices."""
        found = {}
        every = np.arange(len(indices))
        for name in names & self.columns.keys():
            values, valid = self.columns[name]
            rows = every if valid is None else np.flatnonzero(valid[indices])
            chosen = indices if valid is None else indices[rows]
            found[name] = Column(rows, values.take(chosen))
        return found


def _as_arrays(column: pa.Array) -> tuple[np.ndarray | Ragged, np.ndarray | None]:
    """Return the values of an Arrow column, and which of its rows have a value; None for all rows."""
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if isinstance(column, pa.ListArray):
        return Ragged(column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()), valid
    return (column if valid is None else column.fill_null(0)).to_numpy(zero_copy_only=False), valid


class FlatRows:
    """The rows of a dataset, readable as columns of flat arrays.

    Arrays refer to the memory of Arrow, or to the mapped file. Only the chunks of a small table are copied to one.

    Args:
        dataset: a dataset with columns of numbers and of lists of numbers.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatRows, (self.dataset,)  # a worker maps the file itself

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row as a dict."""
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> Rows:
        """Return the rows at some indices."""
        return Rows({0: self}, np.zeros(len(indices), dtype=np.int64), np.asarray(indices))

    @cached_property
    def _chunks(self) -> list[_Chunk]:
        return [_Chunk(batch) for batch in self._batches]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        data = self.dataset.data.table
        batches = (data.combine_chunks() if data.nbytes <= _COPIED_BYTES else data).to_batches()
        return [batch for batch in batches if batch.num_rows]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([batch.num_rows for batch in self._batches])

    @cached_property
    def _order(self) -> np.ndarray | None:
        """The places in the table of the dataset's rows; None if the dataset has all rows of the table in order."""
        indices = self.dataset._indices
        return None if indices is None else indices.column(0).to_numpy()

    def read(self, indices: np.ndarray, names: Set[str]) -> dict[str, Column]:
        """Return the named columns, as far as they exist, of the rows at some indices, shape (rows,)."""
        places = indices if self._order is None else self._order[indices]
        if len(self._chunks) == 1:
            return self._chunks[0].read(places, names)
        which = np.searchsorted(self._ends, places, side="right")
        parts = []
        for number in np.unique(which):
            slots = np.flatnonzero(which == number)
            start = self._ends[number - 1] if number else 0
            parts.append((slots, self._chunks[number].read(places[slots] - start, names)))
        return _merged(parts)


class ShareOfStep(list[int]):
    """The positions of one process's rows in a batch of all processes, with the positions of all rows.

    Args:
        step: the positions of the rows of all processes, shape (rows,). Process i of n takes rows i, i + n, …
        process: the number of the process, counted from 0.
        processes: the number of processes.
    """

    def __init__(self, step: np.ndarray, process: int, processes: int) -> None:
        super().__init__(step[process::processes].tolist())
        self.step = step


class Rows(Sequence[dict[str, Any]]):
    """Rows of several datasets, which a collator reads as columns or, like a list, as dicts.

    Args:
        datasets: the datasets by number.
        sources: the number of the dataset of each row, shape (rows,).
        indices: the index of each row in its dataset, shape (rows,).
        of_step: the rows of all processes in the batch; None if only the rows of this process are known.
    """

    def __init__(
        self, datasets: Mapping[int, FlatRows], sources: np.ndarray, indices: np.ndarray, of_step: Rows | None = None
    ) -> None:
        self._datasets = datasets
        self.sources = sources
        self.indices = indices
        self.of_step = of_step

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([*self],)  # a worker sends the rows instead of their datasets

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return a row as a dict, with the number of its dataset as `source`, or several rows."""
        return self._dicts[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._dicts)

    @cached_property
    def _dicts(self) -> list[dict[str, Any]]:
        """The rows as dicts, with one read per dataset."""
        rows: list[dict[str, Any]] = [{}] * len(self)
        for number, slots in self._parts():
            fetched = self._datasets[number].dataset[self.indices[slots].tolist()]
            for slot, values in zip(slots, zip(*fetched.values(), strict=True), strict=True):
                rows[slot] = {**dict(zip(fetched, values, strict=True)), SOURCE: number}
        return rows

    def read(self, names: Set[str]) -> dict[str, Column]:
        """Return the named columns that a dataset of the rows has."""
        return _merged(
            [(slots, self._datasets[number].read(self.indices[slots], names)) for number, slots in self._parts()]
        )

    def _parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each dataset with rows, and the places of these rows."""
        for number in np.unique(self.sources).tolist():
            yield number, np.flatnonzero(self.sources == number)


def columns_of(rows: Sequence[Mapping[str, Any]], names: Set[str]) -> dict[str, Column]:
    """Return the named columns of rows, which may be dicts. A value of None is a missing value."""
    if isinstance(rows, Rows):
        return rows.read(names)
    columns = {}
    for name in names & {name for row in rows for name in row}:
        present = [number for number, row in enumerate(rows) if row.get(name) is not None]
        arrays = [np.asarray(rows[number][name]) for number in present]
        # An empty list would make integers floats.
        dtype = np.result_type(np.int64, *(array.dtype for array in arrays if array.size))
        is_list = any(array.ndim for array in arrays)
        values = Ragged.of(arrays, dtype) if is_list else np.array(arrays, dtype=dtype)
        columns[name] = Column(np.array(present, dtype=np.int64), values)
    return columns


def _merged(parts: Sequence[tuple[np.ndarray, dict[str, Column]]]) -> dict[str, Column]:
    """Return the columns of several parts of a batch as columns of the batch.

    Args:
        parts: for each part, the places of its rows in the batch, ascending, and its columns.
    """
    if len(parts) == 1:
        return parts[0][1]
    merged = {}
    for name in dict.fromkeys(name for _, columns in parts for name in columns):
        found = [(slots[columns[name].rows], columns[name].values) for slots, columns in parts if name in columns]
        rows = np.concatenate([places for places, _ in found])
        order = np.argsort(rows)
        values = [part for _, part in found]
        lists = [part for part in values if isinstance(part, Ragged)]
        joined = Ragged.joined(lists) if lists else np.concatenate([np.asarray(part) for part in values])
        merged[name] = Column(rows[order], joined.take(order))
    return merged
