"""Encoding of canonical rows as encoder inputs: tokenized once, in batches, and cached by fingerprint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Column, Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import (
    LABEL_PREFIX,
    REPAIRED,
    arrow_feature,
    canonical_rows,
    code_fingerprint,
    outside_code,
    progress_bars_from,
    reading,
)
from mtl_nlp.errors import DataError
from mtl_nlp.messages import Shown
from mtl_nlp.modeling.tasks_multitask import Task, reads_words, task_from_dict
from mtl_nlp.modeling.windows_multitask import Window, default_max_length, tokenize_texts, tokenize_words
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
            (index of the source row), `words`, `positions` and `lost` (see [`Window`]), `length` in sub-words, and
            `label:<task>` with the targets. Source rows without any label have no window.
        references: for each task that the split feeds, the canonical labels in the order of the source rows; None for
            rows without a label.
        repaired: number of illegal span tags in the source, which were rewritten as seqeval reads them.
        empty: number of windows without any sub-word of a text.
        fingerprint: the fingerprint that `datasets` has for the canonical rows.
        max_length: maximum number of sub-words per window; None if unknown or unlimited.
        stride: maximum number of sub-words that neighbouring windows share; None for the default.
        inputs: the canonical inputs in the order of the source rows: `tokens`, or `text` and `text_pair`.
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
        return len(next(iter(self.references.values())))

    @property
    def feeds(self) -> tuple[str, ...]:
        """The tasks that the split has labels for."""
        return tuple(self.references)

    @property
    def num_windows(self) -> int:
        """Number of windows, which are the rows that training samples."""
        return len(self.windows)

    def missing(self, task: str) -> int:
        """Return the number of source rows without a label for the task."""
        return sum(reference is None for reference in self.references[task])

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
    """

    name: str
    windows: IterableDataset
    feeds: tuple[str, ...]
    num_windows: int
    lengths: np.ndarray
    buffer_size: int
    max_length: int | None = None
    stride: int | None = None

    def __repr__(self) -> str:
        return f"EncodedStream({self.name}: {self.num_windows} rows; labels: {', '.join(self.feeds)})"

    @property
    def num_rows(self) -> int:
        """Number of rows, given or counted."""
        return self.num_windows


def encode(
    dataset: Dataset | IterableDataset,
    *,
    inputs: Mapping[str, str],
    labels: Mapping[str, str],
    tasks: Sequence[Task],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    stride: int | None = None,
    name: str = "dataset",
    num_rows: int | None = None,
    buffer_size: int = 1000,
) -> EncodedDataset | EncodedStream:
    """Check and encode a dataset for training or evaluation, like a recipe does.

    Args:
        dataset: the raw rows; rows of an `IterableDataset` are encoded during training.
        inputs: `{"tokens": column}`, or `{"text": column}`, with `text_pair` for pairs.
        labels: task -> column.
        tasks: all tasks of the model, with their label spaces.
        tokenizer: see `load_tokenizer`.
        max_length: maximum number of sub-words per window; the limit of the tokenizer by default.
        stride: maximum number of sub-words that neighbouring windows of a long text share; a quarter of a window by
            default.
        name: the name of the dataset in messages.
        num_rows: number of rows of an `IterableDataset`.
        buffer_size: number of rows of an `IterableDataset` that are shuffled together.

    Raises:
        DataError: if a column is missing, a row is invalid, or the number of streamed rows is not given.
    """
    by_name = {task.name: task for task in tasks}
    arguments: dict[str, Any] = {
        "tasks": by_name,
        "tokenizer": tokenizer,
        "reads_words": reads_words(tasks),
        "max_length": max_length or default_max_length(tokenizer),
        "stride": stride,
    }
    rows = canonical_rows(dataset, name, inputs=inputs, labels=labels, tasks=by_name)
    if isinstance(rows, Dataset):
        return encode_dataset(name, rows, **arguments)
    if num_rows is None:
        raise DataError(f"{name}: an IterableDataset needs `num_rows`. Found None. Give its number of rows.")
    return encode_stream(name, rows, **arguments, num_rows=num_rows, buffer_size=buffer_size)


def encode_dataset(
    name: str,
    rows: Dataset,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    *,
    reads_words: bool,
    max_length: int | None = None,
    stride: int | None = None,
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

    Raises:
        DataError: if no row has a label.
    """
    fed = _fed_by(rows, tasks)
    with progress_bars_from(len(rows)):
        windows = rows.map(
            **_encoding_map(rows, fed, tokenizer, reads_words, max_length, stride), desc=f"Tokenizing {name}"
        )
    if len(windows) == 0:
        raise DataError(f"{name}: no row has a label for any of {', '.join(fed)}.")
    references = {task: rows[LABEL_PREFIX + task] for task in fed}
    repaired = int(rows.data.column(REPAIRED).to_numpy().sum())
    special_tokens = tokenizer.num_special_tokens_to_add(pair="text_pair" in rows.column_names)
    empty = int((windows.data.column("length").to_numpy() <= special_tokens).sum())
    inputs = {key: rows[key] for key in INPUTS if key in rows.column_names}
    return EncodedDataset(name, windows, references, repaired, empty, rows._fingerprint, max_length, stride, inputs)


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
    windows = rows.map(**_encoding_map(rows, fed, tokenizer, reads_words, max_length, stride))
    with reading(name):
        lengths = np.array([window["length"] for window in itertools.islice(windows, _SAMPLED_WINDOWS)])
    if not len(lengths):
        raise DataError(f"{name}: no row has a label for any of {', '.join(fed)}.")
    return EncodedStream(name, windows, tuple(fed), num_rows, lengths, buffer_size, max_length, stride)


def _fed_by(rows: Dataset | IterableDataset, tasks: Mapping[str, Task]) -> dict[str, Task]:
    return {task: tasks[task] for task in tasks if LABEL_PREFIX + task in (rows.column_names or ())}


def _encoding_map(
    rows: Dataset | IterableDataset,
    fed: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    reads_words: bool,
    max_length: int | None,
    stride: int | None,
) -> dict[str, Any]:
    """Return the arguments of `map` that turn canonical rows into windows."""
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
            "tasks": [task.to_dict() for task in fed.values()],
            "reads_words": reads_words,
            "max_length": max_length,
            "stride": stride,
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
    code: str,
) -> dict[str, list]:
    fed = [task_from_dict(task) for task in tasks]
    labels_words = any(task.kind.labels_words for task in fed)
    pairs = batch.get("text_pair")
    encoded: list[list[Window]]
    if reads_words:
        words = batch["tokens"] if "tokens" in batch else _as_words(batch["text"])
        second = None if pairs is None else _as_words(pairs)
        encoded = tokenize_words(tokenizer, words, second, max_length=max_length, stride=stride)
        # Without labels of words, only the first window is used, so the text is truncated to this window.
        encoded = encoded if labels_words else [_first_only(windows) for windows in encoded]
    else:
        texts = [" ".join(words) for words in batch["tokens"]] if "tokens" in batch else batch["text"]
        encoded = tokenize_texts(tokenizer, texts, pairs, max_length=max_length)
    keys = ["input_ids", "words", "positions", "lost"]
    if "token_type_ids" in tokenizer.model_input_names:
        keys.append("token_type_ids")
    columns: dict[str, list] = {key: [] for key in [*keys, "row", "length", *(LABEL_PREFIX + t.name for t in fed)]}
    for position, (index, windows) in enumerate(zip(indices, encoded, strict=True)):
        for number, window in enumerate(windows):
            labels = {}
            for task in fed:
                column = LABEL_PREFIX + task.name
                value = batch[column][position]
                labels[column] = None if value is None else task.kind.target_of_window(value, window.words, number)
            if all(label is None for label in labels.values()):
                continue
            fields = vars(window)
            row = {key: fields[key] for key in keys} | {"row": index, "length": len(window.input_ids)}
            for key, value in (row | labels).items():
                columns[key].append(value)
    return columns


def _as_words(texts: Sequence[str]) -> list[list[str]]:
    return [[word.text for word in split_words(text)] for text in texts]


def _first_only(windows: list[Window]) -> list[Window]:
    first = windows[0]
    first.lost += sum(len(window.input_ids) for window in windows[1:])
    return [first]


def count_unseen(encoded: EncodedDataset, task: Task) -> int:
    """Return the number of labels (of words or texts) in a split that are not in the task's label space.

    Predictions for these labels always count as wrong.
    """
    known = set(task.labels)
    return sum(
        name not in known
        for value in encoded.references[task.name]
        if value is not None
        for name in task.kind.names_in(value)
    )
