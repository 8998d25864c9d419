"""Collation of rows to a batch, the contract between data and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.buckets import bucketed
from mtl_nlp.data.canonical import LABEL_PREFIX, WEIGHT
from mtl_nlp.data.rows import Column, Rows, columns_of
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.ragged_multitask import Ragged
from mtl_nlp.modeling.tasks_multitask import Task

_NO_ROWS = Column(np.array([], dtype=np.int64), Ragged.of([]))


@dataclass
class MultitaskDataCollator:
    """A collator that pads rows of any mixture of datasets and collects the labels of each task.

    The batch::

        input_ids, attention_mask[, token_type_ids]   (B, L)
        rows    {task: LongTensor (n_t,)}              indices of the rows with a label for the task
        labels  {task: Tensor}                         (n_t, L) int64, -100 except on first sub-words;
                                                       (n_t,) int64 or float32; (n_t, C_t) float32
        weights (B,) float32                           the weights of the rows, if a row of the batch has one

    Every batch has an entry for every task of the model, with n_t = 0 if no row has a label for the task.

    Args:
        tokenizer: the tokenizer, for its padding ids.
        tasks: all tasks of the model, by name or as a list.
        pad_to_multiple_of: number of which L should be a multiple, for faster kernels on some hardware.
        bucket_limit: the largest L to which batches are padded so that they have few different L, see `bucketed`; None
            to pad to the longest row only.
    """

    tokenizer: PreTrainedTokenizerBase
    tasks: Mapping[str, Task]
    pad_to_multiple_of: int | None = None
    bucket_limit: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, Mapping):
            self.tasks = {task.name: task for task in self.tasks}

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch of rows with the columns of [`EncodedDataset`]'s windows."""
        columns = columns_of(features, {"input_ids", "token_type_ids"} | self._label_columns)
        input_ids = Ragged.of(columns["input_ids"].values)
        length = self.padded_length(int(input_ids.sizes.max()))
        present = np.arange(length) < input_ids.sizes[:, None]
        batch: dict[str, Any] = {
            "input_ids": _pad(input_ids.values, present, self.tokenizer.pad_token_id),
            "attention_mask": torch.from_numpy(present.astype(np.int64)),
        }
        if "token_type_ids" in self.tokenizer.model_input_names:
            type_ids = Ragged.of(columns["token_type_ids"].values).values
            batch["token_type_ids"] = _pad(type_ids, present, self.tokenizer.pad_token_type_id)
        return batch | self._labels_in(columns, len(features), length)

    def padded_length(self, longest: int) -> int:
        """Return L, the number of sub-words to which a batch is padded.

        Args:
            longest: the number of sub-words of the longest row in the batch.
        """
        multiple = self.pad_to_multiple_of or 1
        rounded = -(-longest // multiple) * multiple
        return rounded if self.bucket_limit is None else bucketed(rounded, self.bucket_limit)

    def labels_of(self, features: Rows, length: int) -> dict[str, Any]:
        """Return the `rows`, `labels` and `weights` of a batch.

        Args:
            features: the rows of the batch.
            length: L, at least the number of sub-words of the longest row.
        """
        return self._labels_in(features.read(self._label_columns), len(features), length)

    @property
    def _label_columns(self) -> set[str]:
        return {"positions", WEIGHT, *(LABEL_PREFIX + name for name in self.tasks)}

    def _labels_in(self, columns: Mapping[str, Column], number: int, length: int) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if WEIGHT in columns:
            weights = np.ones(number, dtype=np.float32)
            weights[columns[WEIGHT].rows] = columns[WEIGHT].values
            batch["weights"] = torch.from_numpy(weights)
        positions = columns.get("positions", _NO_ROWS)
        batch["rows"], batch["labels"] = {}, {}
        for name, task in self.tasks.items():
            column = columns.get(LABEL_PREFIX + name, _NO_ROWS)
            rows, targets = column.rows, column.values
            of_rows = Ragged.of(positions.values).take(np.searchsorted(positions.rows, rows))
            batch["rows"][name] = torch.from_numpy(rows)
            batch["labels"][name] = torch.from_numpy(task.kind.pad(targets, of_rows, length))
        return batch


class WithState:
    """A collator for (rows, state to resume from) of a stream, which returns (batch, state); None stays None."""

    def __init__(self, collator: Callable[[Any], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, batch: tuple[list[dict[str, Any]], dict[str, Any]] | None) -> Any:
        return None if batch is None else (self.collator(batch[0]), batch[1])


class WithFeatures:
    """A collator that returns (rows, batch of these rows)."""

    def __init__(self, collator: MultitaskDataCollator) -> None:
        self.collator = collator

    def __call__(self, features: Sequence[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], dict[str, Any]]:
        return features, checked_batch(self.collator(rows_for(self.collator, features)))


def rows_for(collator: Callable[[Any], Any], rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return rows as a collator expects them: as a list of dicts, which a user's own collator may change."""
    return rows if type(collator) is MultitaskDataCollator else [*rows]


def checked_batch(batch: Any) -> dict[str, Any]:
    """Return the batch of a collator, which may be the user's own.

    Raises:
        DataError: if the batch does not have the rows and labels of tasks.
    """
    if not isinstance(batch, Mapping) or not {"input_ids", "attention_mask", "rows", "labels"} <= batch.keys():
        found = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise DataError(
            f"`data_collator` should return `input_ids`, `attention_mask`, `rows` and `labels`, like "
            f"MultitaskDataCollator. Found {found}."
        )
    return dict(batch)


def _pad(values: np.ndarray, present: np.ndarray, value: int) -> torch.Tensor:
    """Return sequences in one tensor, shape (B, L), padded on the right.

    Args:
        values: the numbers of all sequences, one after the other.
        present: True where the tensor has a number of a row, shape (B, L).
        value: the number at all other positions.
    """
    padded = np.full(present.shape, value, dtype=np.int64)
    padded[present] = values
    return torch.from_numpy(padded)
