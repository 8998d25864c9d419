"""Counts over a complete column by the compute functions of Arrow, without a Python object per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Column, Dataset

from mtl_nlp.modeling.label_kinds_multitask import LabelKind

_BLOCK = 10_000
"""The number of rows that `values_of` reads at once."""


def count_missing(column: Sequence[Any]) -> int:
    """Return the number of rows of a column that are None."""
    array = _arrow_of(column)
    return sum(value is None for value in column) if array is None else array.null_count


def count_names(column: Sequence[Any], kind: LabelKind) -> Counter[str]:
    """Return the number of occurrences of each label name in canonical labels, in the order of the first occurrences.

    Args:
        column: the labels; None for rows without a label.
        kind: the label kind of the task.
    """
    array = _arrow_of(column)
    is_list = array is not None and (pa.types.is_list(array.type) or pa.types.is_large_list(array.type))
    counts: Counter[str] = Counter()
    if array is None or (is_list and not kind.names_are_entries):
        for label in values_of(column):
            counts.update(kind.names_in(label) if label is not None else ())
        return counts
    for pair in pc.value_counts(pc.list_flatten(array) if is_list else array).to_pylist():
        value, number = pair["values"], pair["counts"]
        for name in () if value is None else kind.names_in([value] if is_list else value):
            counts[name] += number
    return counts


def values_of(column: Sequence[Any]) -> Iterator[Any]:
    """Yield the values of a column, which are read in blocks: a column of `datasets` would read row by row."""
    for start in range(0, len(column), _BLOCK):
        yield from column[start : start + _BLOCK]


def _arrow_of(column: Sequence[Any]) -> pa.ChunkedArray | None:
    """Return a column of a dataset as an Arrow array, without a copy if all rows are in order; None for other types."""
    if not isinstance(column, Column) or not isinstance(column.source, Dataset):
        return None
    array, order = column.source.data.table.column(column.column_name), column.source._indices
    return array if order is None else array.take(order.column(0))
