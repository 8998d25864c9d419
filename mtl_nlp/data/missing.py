"""Rows without an input: null, NaN, or a list without words."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from transformers.utils import logging

from mtl_nlp.data.cutting import flattened
from mtl_nlp.errors import DataError
from mtl_nlp.messages import counted

logger = logging.get_logger(__name__)


def rows_with_text(
    name: str, rows: Dataset, inputs: Mapping[str, str], *, refuses: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Return a mask of the canonical rows that have all inputs, and a note for each column that lacks inputs.

    Args:
        name: dataset and split, for messages.
        rows: canonical rows, see `canonical_rows`.
        inputs: canonical input -> column.
        refuses: whether a row that lacks an input is an error.

    Raises:
        DataError: if a row lacks an input and such rows are refused, or if no row has all inputs.
    """
    mask, notes = np.ones(len(rows), dtype=bool), []
    for key, column in inputs.items():
        lacking = mask & _lacking(rows.data.column(_canonical(key, rows.column_names)))
        mask &= ~lacking
        if lacking.any():
            if refuses:
                raise _refused(f"{name}, row {lacking.argmax()}", key, column)
            notes.append(describe_missing(name, key, column, int(lacking.sum())))
    if not mask.any():
        raise DataError(f"{name}: no row has {' and '.join(map(repr, inputs.values()))}, so no row can be used.")
    return mask, notes


def stream_with_text(
    name: str, rows: IterableDataset, inputs: Mapping[str, str], *, refuses: bool = False
) -> IterableDataset:
    """Return a stream of canonical rows without the rows that lack an input; see `rows_with_text`."""
    arguments = {"name": name, "inputs": dict(inputs), "refuses": refuses}
    return rows.filter(_has_text, with_indices=True, fn_kwargs=arguments)


def with_text(name: str, rows: Dataset | IterableDataset, inputs: Mapping[str, str], *, for_prediction: bool) -> Any:
    """Return canonical rows without the rows that lack an input; a warning counts them for each column.

    Args:
        name: the dataset, for messages.
        rows: canonical rows, see `canonical_rows`.
        inputs: canonical input -> column.
        for_prediction: whether every row gets a prediction, so that a row without an input is an error.

    Raises:
        DataError: if a row that gets a prediction lacks an input, or if no row has all inputs.
    """
    if isinstance(rows, IterableDataset):
        return stream_with_text(name, rows, inputs)
    mask, notes = rows_with_text(name, rows, inputs)
    if notes and for_prediction:
        raise DataError(
            f"{name}, row {mask.argmin()}: no text, and every row gets a prediction. Leave such rows out, such as with "
            f"dataset.filter(lambda row: row[{next(iter(inputs.values()))!r}])."
        )
    for note in notes:
        logger.warning(note)
    return flattened(rows.select(np.flatnonzero(mask))) if notes else rows


def missing_input(
    name: str, number: int, row: Mapping[str, Any], inputs: Mapping[str, str], *, refuses: bool
) -> str | None:
    """Return the first input that a canonical row lacks, or None.

    Args:
        name: dataset and split, for messages.
        number: the number of the row.
        row: the row.
        inputs: canonical input -> column.
        refuses: whether a row that lacks an input is an error.

    Raises:
        DataError: if the row lacks an input and such rows are refused.
    """
    key = next((key for key in inputs if row[_canonical(key, row)] in (None, [])), None)
    if key is not None and refuses:
        raise _refused(f"{name}, row {number}", key, inputs[key])
    return key


def describe_missing(name: str, key: str, column: str, count: int) -> str:
    """Return a sentence about the rows that lack an input.

    Args:
        name: dataset and split.
        key: the canonical input.
        column: the column of the input.
        count: number of rows.
    """
    return f"{name}: {counted(count, 'row')} without {_what(key)} in column {column!r}; skipped"


def _canonical(key: str, columns: Container[str]) -> str:
    """Return the canonical column of an input: a text with character spans has become `tokens`."""
    return key if key in columns else "tokens"


def _what(key: str) -> str:
    return "words" if key == "tokens" else "text"


def _lacking(column: pa.ChunkedArray) -> np.ndarray:
    lacks = pc.is_null(column)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lacks = pc.or_(lacks, pc.fill_null(pc.equal(pc.list_value_length(column), 0), False))
    return lacks.to_numpy()


def _has_text(row: Mapping[str, Any], number: int, name: str, inputs: Mapping[str, str], refuses: bool) -> bool:
    return missing_input(name, number, row, inputs, refuses=refuses) is None


def _refused(where: str, key: str, column: str) -> DataError:
    return DataError(f"{where}: no {_what(key)} in column {column!r}. Set `on_missing_text: skip` to skip such rows.")
