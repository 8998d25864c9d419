"""Encoding of canonical rows as encoder inputs: tokenized once, in batches, and cached by fingerprint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Column, Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import (
    COUNTS,
    LABEL_PREFIX,
    REPAIRED,
    WEIGHT,
    arrow_feature,
    code_fingerprint,
    outside_code,
    progress_bars_from,
    reading,
)
from mtl_nlp.data.rows import FlatRows
from mtl_nlp.data.scans import count_missing
from mtl_nlp.errors import DataError
from mtl_nlp.messages import Shown
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict
from mtl_nlp.modeling.windows_multitask import Window, added_tokens, tokenize_texts, tokenize_words
from mtl_nlp.modeling.words_multitask import split_words
from mtl_nlp.recipe.sections import INPUTS

_SAMPLED_WINDOWS = 1000
"""Number of first windows of a stream from which lengths are estimated."""


@dataclass(frozen=True, repr=False)
class EncodedDataset(Shown):
    """A split, ready for the encoder.

    Attributes:
        name: dataset and split, for messages.
        windows: one row per window, with columns `input_ids`, `token_type_ids` (if the tokenizer returns them), `row`
            (index of the source row), `words`, `positions` and `lost` (see [`Window`]), `length` in sub-words,
            `label:<task>` with the targets, and `weight` if the rows have weights. Source rows without any label have
            no window.
        references: for each task that the dataset names, the canonical labels in the order of the source rows; None
            for rows without a label.
        repaired: number of illegal span tags in the source, which were rewritten as seqeval reads them.
        empty: number of windows without any sub-word of a text.
        fingerprint: the fingerprint that `datasets` has for the canonical rows.
        max_length: maximum number of sub-words per window; None if unknown or unlimited.
        stride: maximum number of sub-words that neighbouring windows share; None for the default.
        inputs: the canonical inputs in the order of the source rows: `tokens`, or `text` and `text_pair`.
        label_spaces: for each task with a label space that the split feeds, the label space of the targets.
        unknown_labels: for each task, the labels in the rows that the label space does not have, if they were looked
            for (see `encode`).
        counts: the numbers of words without a label and of character spans that did not fit, by column of `COUNTS`.
    """

    name: str
    windows: Dataset
    references: dict[str, Column]
    repaired: int
    empty: int
    fingerprint: str
    max_length: int | None = None
    stride: int | None = None
    inputs: dict[str, Column] = field(default_factory=dict)
    label_spaces: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown_labels: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of windows."""
        return self.num_windows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a window, a row of `windows`."""
        return self.windows[index]

    def __repr__(self) -> str:
        labelled = ", ".join(f"{task} {self.num_rows - self.missing(task)}" for task in self.feeds)
        return f"EncodedDataset({self.name}: {self.num_rows} rows, {self.num_windows} windows; labels: {labelled})"

    @property
    def num_rows(self) -> int:
        """Number of source rows; a long row has several windows."""
        return len(next(iter((self.references or self.inputs).values())))

    @property
    def feeds(self) -> tuple[str, ...]:
        """The tasks that the split has labels for, in at least one row."""
        data = self.windows.data
        labelled = {name for name in data.column_names if data.column(name).null_count < data.num_rows}
        return tuple(task for task in self.references if LABEL_PREFIX + task in labelled)

    @property
    def num_windows(self) -> int:
        """Number of windows, which are the rows that training samples."""
        return len(self.windows)

    def missing(self, task: str) -> int:
        """Return the number of source rows without a label for the task."""
        return count_missing(self.references[task])

    @cached_property
    def rows(self) -> FlatRows:
        """The windows as columns of flat arrays, from which batches are gathered."""
        return FlatRows(self.windows)

    @property
    def lengths(self) -> np.ndarray:
        """Number of sub-words of each window, shape (windows,)."""
        return self.windows.data.column("length").to_numpy()

    @property
    def unlabelled(self) -> int:
        """Number of source rows without any label, which have no window."""
        return self.num_rows - self._distinct_rows

    @property
    def extra_windows(self) -> int:
        """Number of windows after the first window of each row."""
        return self.num_windows - self._distinct_rows

    @property
    def truncated(self) -> int:
        """Number of texts with sub-words that are in no window."""
        return int((self.windows.data.column("lost").to_numpy() > 0).sum())

    @property
    def _distinct_rows(self) -> int:
        return len(np.unique(self.windows.data.column("row").to_numpy()))


@dataclass(frozen=True, repr=False)
class EncodedStream(Shown):
    """A training split that is read, checked and encoded during training.

    Attributes:
        name: dataset and split, for messages.
        windows: rows with the columns of `EncodedDataset.windows`.
        feeds: the tasks that the split has labels for.
        num_windows: number of rows, given or counted, from which the dataset's probability and the length of an epoch
            are computed. A pass ends with the last row, regardless of this number.
        lengths: number of sub-words of the first windows, shape (windows,).
        buffer_size: number of rows that are read and shuffled together.
        max_length: as in `EncodedDataset`.
        stride: as in `EncodedDataset`.
        label_spaces: as in `EncodedDataset`.
    """

    name: str
    windows: IterableDataset
    feeds: tuple[str, ...]
    num_windows: int
    lengths: np.ndarray
    buffer_size: int
    max_length: int | None = None
    stride: int | None = None
    label_spaces: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"EncodedStream({self.name}: {self.num_windows} rows; labels: {', '.join(self.feeds)})"

    @property
    def num_rows(self) -> int:
        """Number of rows, given or counted."""
        return self.num_windows


def encode_dataset(
    name: str,
    rows: Dataset,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    *,
    reads_words: bool,
    max_length: int | None = None,
    stride: int | None = None,
    for_prediction: bool = False,
) -> EncodedDataset:
    """Encode canonical rows (see `canonical_rows`).

    A text that is longer than `max_length` is cut into windows if a task labels its words; labels of the complete text
    are in the first window. Any other long text is truncated.

    Args:
        name: dataset and split, for messages.
        rows: canonical rows.
        tasks: all tasks by name, with their label spaces.
        tokenizer: a fast tokenizer, see `load_tokenizer`.
        reads_words: whether raw texts are split into words first, see `MultitaskConfig.reads_words`.
        max_length: maximum number of sub-words per window; None for no limit.
        stride: maximum number of sub-words that neighbouring windows share; None for a quarter of a window.
        for_prediction: whether every row has all windows that any of the tasks reads, also without a label.

    Raises:
        DataError: if no row has a label, unless for prediction.
    """
    fed = _fed_by(rows, tasks)
    read_by = tasks if for_prediction else fed
    arguments = _encoding_map(rows, fed, tokenizer, reads_words, max_length, stride, read_by)
    arguments["fn_kwargs"]["keeps_unlabelled"] = for_prediction
    with progress_bars_from(len(rows)):
        windows = rows.map(**arguments, desc=f"Tokenizing {name}")
    if len(windows) == 0:
        raise DataError(f"{name}: no row has a label for any of {', '.join(fed)}.")
    references = {task: rows[LABEL_PREFIX + task] for task in fed}
    counts = {
        key: int(rows.data.column(key).to_numpy().sum()) for key in (REPAIRED, *COUNTS) if key in rows.column_names
    }
    special_tokens = tokenizer.num_special_tokens_to_add(pair="text_pair" in rows.column_names)
    empty = int((windows.data.column("length").to_numpy() <= special_tokens).sum())
    inputs = {key: rows[key] for key in INPUTS if key in rows.column_names}
    return EncodedDataset(
        name,
        windows,
        references,
        counts.pop(REPAIRED),
        empty,
        rows._fingerprint,
        max_length,
        stride,
        inputs,
        _label_spaces(fed),
        counts=counts,
    )


def encode_stream(
    name: str,
    rows: IterableDataset,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    *,
    reads_words: bool,
    max_length: int | None,
    stride: int | None,
    num_rows: int,
    buffer_size: int,
) -> EncodedStream:
    """Encode a stream of canonical rows while it is read.

    Args:
        name: dataset and split, for messages.
        rows: the stream of canonical rows.
        tasks: as in `encode_dataset`.
        tokenizer: as in `encode_dataset`.
        reads_words: as in `encode_dataset`.
        max_length: as in `encode_dataset`.
        stride: as in `encode_dataset`.
        num_rows: number of rows, given or counted.
        buffer_size: number of rows that are shuffled together.

    Raises:
        DataError: if no row has a label, or if one of the first rows is invalid or cannot be read.
    """
    fed = _fed_by(rows, tasks)
    arguments = _encoding_map(rows, fed, tokenizer, reads_words, max_length, stride, fed)
    windows = rows.map(**arguments)
    with reading(name):
        lengths = np.array([window["length"] for window in itertools.islice(windows, _SAMPLED_WINDOWS)])
    if not len(lengths):
        raise DataError(f"{name}: no row has a label for any of {', '.join(fed)}.")
    return EncodedStream(
        name, windows, tuple(fed), num_rows, lengths, buffer_size, max_length, stride, _label_spaces(fed)
    )


def _fed_by(rows: Dataset | IterableDataset, tasks: Mapping[str, Task]) -> dict[str, Task]:
    return {task: tasks[task] for task in tasks if LABEL_PREFIX + task in (rows.column_names or ())}


def _label_spaces(fed: Mapping[str, Task]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(task.labels) for name, task in fed.items() if task.kind.has_label_space}


def _encoding_map(
    rows: Dataset | IterableDataset,
    fed: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    reads_words: bool,
    max_length: int | None,
    stride: int | None,
    read_by: Mapping[str, Task],
) -> dict[str, Any]:
    """Return the arguments of `map` that turn canonical rows into windows, which the tasks `read_by` read."""
    features = {
        "input_ids": List(Value("int32")),
        "row": Value("int32"),
        "words": List(Value("int32")),
        "positions": List(Value("int32")),
        "lost": Value("int32"),
        "length": Value("int32"),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = List(Value("int8"))
    if WEIGHT in (rows.column_names or ()):
        features[WEIGHT] = Value("float32")
    return {
        "function": _encode_batch,
        "batched": True,
        "with_indices": True,
        "remove_columns": rows.column_names,
        "features": Features(
            features | {LABEL_PREFIX + task: arrow_feature(fed[task].kind.target_feature) for task in fed}
        ),
        "fn_kwargs": {
            "tokenizer": tokenizer,
            # Without what data have set, which targets do not need: tuning would change the cache's key.
            "tasks": [task.as_given().with_labels(task.labels).to_dict() for task in fed.values()],
            "reads_words": reads_words,
            "max_length": max_length,
            "stride": stride,
            "labels_words": any(task.kind.labels_words for task in read_by.values()),
            "code": code_fingerprint() + outside_code(fed.values()),
        },
    }


def _encode_batch(
    batch: Mapping[str, list],
    indices: Sequence[int],
    *,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[dict[str, Any]],
    reads_words: bool,
    max_length: int | None,
    stride: int | None,
    labels_words: bool,
    code: str,
    keeps_unlabelled: bool = False,
) -> dict[str, list]:
    fed = [task_from_dict(task) for task in tasks]
    pairs = batch.get("text_pair")
    encoded: list[list[Window]]
    if reads_words:
        words = batch["tokens"] if "tokens" in batch else _as_words(batch["text"], tokenizer)
        second = None if pairs is None else _as_words(pairs, tokenizer)
        encoded = tokenize_words(tokenizer, words, second, max_length=max_length, stride=stride)
        # Without labels of words, only the first window is used, so the text is truncated to this window.
        encoded = encoded if labels_words else [_first_only(windows) for windows in encoded]
    else:
        texts = [" ".join(words) for words in batch["tokens"]] if "tokens" in batch else batch["text"]
        encoded = tokenize_texts(tokenizer, texts, pairs, max_length=max_length)
    keys = ["input_ids", "words", "positions", "lost"]
    if "token_type_ids" in tokenizer.model_input_names:
        keys.append("token_type_ids")
    with_weight = [WEIGHT] if WEIGHT in batch else []
    added = [*with_weight, "row", "length", *(LABEL_PREFIX + task.name for task in fed)]
    columns: dict[str, list] = {key: [] for key in [*keys, *added]}
    for position, (index, windows) in enumerate(zip(indices, encoded, strict=True)):
        for number, window in enumerate(windows):
            labels = {}
            for task in fed:
                column = LABEL_PREFIX + task.name
                value = batch[column][position]
                labels[column] = None if value is None else task.kind.target_of_window(value, window.words, number)
            if not keeps_unlabelled and all(label is None for label in labels.values()):
                continue
            fields = vars(window)
            row = {key: fields[key] for key in keys} | {"row": index, "length": len(window.input_ids)}
            row |= {key: batch[key][position] for key in with_weight}
            for key, value in (row | labels).items():
                columns[key].append(value)
    return columns


def _as_words(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    whole = added_tokens(tokenizer)
    return [[word.text for word in split_words(text, whole)] for text in texts]


def _first_only(windows: list[Window]) -> list[Window]:
    first = windows[0]
    first.lost += sum(len(window.input_ids) for window in windows[1:])
    return [first]
