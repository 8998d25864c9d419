"""Collation of rows to a batch, the contract between data and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import LABEL_PREFIX, WEIGHT
from mtl_nlp.data.rows import SOURCE, Column, Rows, columns_of
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
    """

    tokenizer: PreTrainedTokenizerBase
    tasks: Mapping[str, Task]
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, Mapping):
            self.tasks = {task.name: task for task in self.tasks}

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch of rows with the columns of [`EncodedDataset`]'s windows."""
        labels = {LABEL_PREFIX + name for name in self.tasks}
        columns = columns_of(features, {"input_ids", "token_type_ids", "positions", WEIGHT} | labels)
        input_ids = Ragged.of(columns["input_ids"].values)
        length = int(input_ids.sizes.max())
        if self.pad_to_multiple_of is not None:
            length = -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
        present = np.arange(length) < input_ids.sizes[:, None]
        batch: dict[str, Any] = {
            "input_ids": _pad(input_ids.values, present, self.tokenizer.pad_token_id),
            "attention_mask": torch.from_numpy(present.astype(np.int64)),
        }
        if "token_type_ids" in self.tokenizer.model_input_names:
            type_ids = Ragged.of(columns["token_type_ids"].values).values
            batch["token_type_ids"] = _pad(type_ids, present, self.tokenizer.pad_token_type_id)
        if WEIGHT in columns:
            weights = np.ones(len(features), dtype=np.float32)
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


class SourcedBatch(dict[str, Any]):
    """A batch that knows the datasets of its rows. A model accepts the batch like any other.

    Args:
        batch: the batch from the collator.
        drawn: the number of rows from each dataset of the mixture.
    """

    def __init__(self, batch: Mapping[str, Any], drawn: Sequence[int] = ()) -> None:
        super().__init__(batch)
        self.drawn = drawn


class WithSources:
    """A collator that counts the rows of each dataset in a batch.

    Args:
        collator: the collator of the batch.
        datasets: the number of datasets in the mixture, which numbers its rows in the column `SOURCE`.
    """

    def __init__(self, collator: Callable[[Any], dict[str, Any]], datasets: int) -> None:
        self.collator = collator
        self.datasets = datasets

    def __call__(self, features: Sequence[dict[str, Any]]) -> SourcedBatch:
        sources = features.sources if isinstance(features, Rows) else [feature[SOURCE] for feature in features]
        drawn = np.bincount(sources, minlength=self.datasets).tolist()
        return SourcedBatch(checked_batch(self.collator(_rows_for(self.collator, features))), drawn)


class WithFeatures:
    """A collator that returns (rows, batch of these rows)."""

    def __init__(self, collator: MultitaskDataCollator) -> None:
        self.collator = collator

    def __call__(self, features: Sequence[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], dict[str, Any]]:
        return features, checked_batch(self.collator(_rows_for(self.collator, features)))


def _rows_for(collator: Callable[[Any], Any], rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
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
