"""Datasets from Python: raw rows with the columns of their inputs and labels, checked and encoded as in a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from mtl_nlp.data.canonical import LABEL_PREFIX, canonical_rows, reader_of
from mtl_nlp.data.decoding import decoded_rows
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, encode_dataset, encode_stream
from mtl_nlp.data.labels import label_names, unite_label_spaces
from mtl_nlp.data.learning import learn_fed_tasks
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.data.missing import with_text
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.tasks_multitask import Task, reads_words
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.recipe.label_columns import LabelColumns, LabelMaps, LabelSource

logger = logging.get_logger(__name__)

ColumnNames = Mapping[str, Any]
"""Columns by input or by task (see `LabelSource`), for all datasets or by dataset."""

_SHOWN = 8
"""The number of labels of a label space in a message."""


def encode(
    dataset: Dataset | IterableDataset,
    *,
    inputs: Mapping[str, str],
    labels: Mapping[str, LabelColumns],
    tasks: Sequence[Task],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    stride: int | None = None,
    name: str = "dataset",
    num_rows: int | None = None,
    buffer_size: int = 1000,
    label_map: LabelMaps | None = None,
    weight: str | None = None,
) -> EncodedDataset | EncodedStream:
    """Check and encode a dataset for training or evaluation, like a recipe does.

    Args:
        dataset: the raw rows; rows of an `IterableDataset` are encoded during training.
        inputs: `{"tokens": column}`, or `{"text": column}`, with `text_pair` for pairs.
        labels: task -> column, or columns and options, see `LabelSource`.
        tasks: all tasks of the model, with their label spaces.
        tokenizer: see `load_tokenizer`.
        max_length: maximum number of sub-words per window; the limit of the tokenizer by default.
        stride: maximum number of sub-words that neighbouring windows of a long text share; a quarter of a window by
            default.
        name: the name of the dataset in messages.
        num_rows: number of rows of an `IterableDataset`.
        buffer_size: number of rows of an `IterableDataset` that are shuffled together.
        label_map: task -> name in the data -> new name.
        weight: the column with the weights of the rows in the mean loss, numbers of at least 0; a missing weight is 1.

    Raises:
        DataError: if a column is missing, a row is invalid, the label space of a task is empty or has no label of the
            rows, or the number of streamed rows is not given.
    """
    columns = Columns(inputs, labels, tuple(tasks), tokenizer, max_length, stride, label_map, weight)
    rows = columns.canonical(dataset, name)
    if isinstance(rows, Dataset):
        return columns.encode_rows(rows, name)
    if num_rows is None:
        raise DataError(f"{name}: an IterableDataset needs `num_rows`. Found None. Give its number of rows.")
    return encode_stream(name, rows, **columns.encoding(), num_rows=num_rows, buffer_size=buffer_size)


@dataclass(frozen=True)
class Columns:
    """The columns of raw datasets, and the tasks and the tokenizer that their rows are encoded for.

    Attributes:
        inputs: `{"tokens": column}`, or `{"text": column}`, with `text_pair` for pairs; for all datasets, or a dict of
            them by dataset. None if no raw dataset is expected.
        labels: task -> column; for all datasets, or a dict of them by dataset.
        tasks: all tasks of the model.
        tokenizer: the model's tokenizer; None if no raw dataset is expected.
        max_length: maximum number of sub-words per window; the limit of the tokenizer by default.
        stride: maximum number of sub-words that neighbouring windows share; None for the default.
        label_map: task -> name in the data -> new name.
        weight: the column with the weights of the rows in the mean loss; None without weights.
    """

    inputs: ColumnNames | None = None
    labels: ColumnNames | None = None
    tasks: tuple[Task, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None
    max_length: int | None = None
    stride: int | None = None
    label_map: LabelMaps | None = None
    weight: str | None = None

    def canonical(self, dataset: Any, name: str, *, all_labels: bool = True, needs_weight: bool = True) -> Any:
        """Return the rows of a raw dataset in canonical form.

        Args:
            dataset: the raw rows.
            name: the name of the dataset.
            all_labels: whether every column of labels is needed, and rows without an input are skipped; otherwise,
                missing columns are left out, and a row without an input is an error.
            needs_weight: whether the column of weights is needed, which files for evaluation often lack.

        Raises:
            DataError: if columns of the dataset are not given or missing, or a row is invalid or lacks an input.
        """
        needs_labels = all_labels or self.labels is not None
        labels = _of_dataset(self.labels, name, "labels", '{"topic": "category"}') if needs_labels else {}
        present = set(dataset.column_names or ())
        if not all_labels:
            labels = {
                task: given for task, given in labels.items() if present.issuperset(LabelSource.of(given).columns)
            }
        tasks = {task.name: task for task in self.tasks}
        if not tasks:
            raise DataError(f"{name}: a raw dataset needs `tasks=`, all tasks of the model. Found none.")
        for task in labels:
            if task not in tasks:
                raise DataError(f"{name}: `labels` should name tasks of the model. {did_you_mean(task, tasks)}")
        inputs = _of_dataset(self.inputs, name, "inputs", '{"text": "sentence"}')
        rows = canonical_rows(
            dataset,
            name,
            inputs=inputs,
            labels=labels,
            tasks=tasks,
            weight=self.weight if needs_weight or self.weight in present else None,
            label_map=self._maps_of(labels),
            tokenizer=self.tokenizer,
            keeps_missing=True,
        )
        return with_text(name, rows, inputs, for_prediction=not all_labels)

    def _maps_of(self, labels: Mapping[str, Any]) -> LabelMaps:
        return {task: names for task, names in (self.label_map or {}).items() if task in labels}

    def encoding(self) -> dict[str, Any]:
        """Return the arguments with which rows are encoded.

        Raises:
            DataError: if there is no tokenizer.
        """
        if self.tokenizer is None:
            raise DataError(
                "Raw datasets need a tokenizer. Pass `tokenizer=` to TaskMixture or `processing_class=` to the trainer."
            )
        return {
            "tasks": {task.name: task for task in self.tasks},
            "tokenizer": self.tokenizer,
            "reads_words": reads_words(self.tasks),
            "max_length": self.max_length or default_max_length(self.tokenizer),
            "stride": self.stride,
        }

    def encode_rows(self, rows: Dataset, name: str, *, for_prediction: bool = False) -> EncodedDataset:
        """Encode canonical rows, after a comparison of their labels with the label spaces.

        Args:
            rows: the canonical rows.
            name: the name of the dataset.
            for_prediction: see `encode_dataset`.

        Raises:
            DataError: if a label space is empty or has no label of the rows, or no row has a label.
        """
        unknown = {task.name: labels for task in self.tasks if (labels := _unknown_labels(rows, name, task))}
        encoded = encode_dataset(name, rows, **self.encoding(), for_prediction=for_prediction)
        return dataclasses.replace(encoded, unknown_labels=unknown)

    def encode(self, given: Mapping[str, Any], split: str) -> dict[str, Any]:
        """Encode the raw datasets among some datasets.

        Args:
            given: encoded and raw datasets by name. A `DatasetDict` stands for one of its splits.
            split: the split to take from a `DatasetDict`.

        Raises:
            DataError: if a value is not a dataset, or a raw dataset cannot be encoded.
        """
        return {name: self._encoded(dataset, name, split) for name, dataset in given.items()}

    def _encoded(self, dataset: Any, name: str, split: str) -> Any:
        if isinstance(dataset, EncodedDataset | EncodedStream):
            return dataset
        return self.encode_rows(self.canonical(_rows_of(dataset, name, split), name, needs_weight=False), name)

    def for_prediction(self, dataset: Any, name: str) -> EncodedDataset:
        """Encode all rows of a dataset for the predictions of all tasks, also rows without a label.

        Args:
            dataset: an encoded or raw dataset, which may lack some or all columns of labels. A `DatasetDict` stands for
                its split `test`.
            name: the name of the dataset.

        Raises:
            DataError: if the value is not a dataset, an encoded dataset does not hold its texts, or a row is invalid.
        """
        if isinstance(dataset, EncodedDataset):
            rows = decoded_rows(dataset, {task.name: task for task in self.tasks})
            window = {"max_length": dataset.max_length, "stride": dataset.stride}
            return encode_dataset(name, rows, **{**self.encoding(), **window}, for_prediction=True)
        rows = self.canonical(_rows_of(dataset, name, "test"), name, all_labels=False, needs_weight=False)
        return self.encode_rows(rows, name, for_prediction=True)

    def read_training(self, given: Mapping[str, Any]) -> tuple[Columns, dict[str, Any]]:
        """Encode the raw datasets, and let the tasks learn from the training rows as in a recipe.

        A task without labels gets the names of a ClassLabel column in their order, or the sorted names in any other
        column. See `learn_fed_tasks` for the options that tasks learn.

        Args:
            given: encoded and raw datasets by name. A `DatasetDict` stands for its split `train`.

        Returns:
            These columns with the learned tasks, and the encoded datasets by name.

        Raises:
            DataError: if a value is not a dataset, the labels of a task are unknown, or a dataset cannot be encoded.
        """
        raw = {
            name: _rows_of(value, name, "train")
            for name, value in given.items()
            if not isinstance(value, EncodedDataset | EncodedStream)
        }
        rows = {name: self.canonical(dataset, name) for name, dataset in raw.items()}
        found = dataclasses.replace(self, tasks=tuple(self._with_labels(raw, rows)))
        encoded = {name: found.encode_rows(each, name) for name, each in rows.items()}
        datasets = {name: encoded.get(name, value) for name, value in given.items()}
        return dataclasses.replace(found, tasks=tuple(learn_fed_tasks(found.tasks, datasets.values()))), datasets

    def _with_labels(self, raw: Mapping[str, Dataset], rows: Mapping[str, Dataset]) -> list[Task]:
        unknown = {task.name: task for task in self.tasks if task.kind.has_label_space and not task.labels}
        loaded = {}
        for name, dataset in raw.items():
            labels = _of_dataset(self.labels, name, "labels", "")
            types, maps, wanted = dataset.features, self._maps_of(labels), [task for task in labels if task in unknown]
            names = {task: reader_of(unknown[task], labels[task], types, maps).known_names(types) for task in wanted}
            loaded[name] = LoadedDataset({"train": rows[name]}, names)
        for task in unknown:
            if not any(task in data.class_names for data in loaded.values()):
                raise DataError(
                    f"Task {task!r}: no raw dataset has labels for the task, so its label space is unknown. Give the "
                    f"task its `labels`, or add the task to the `labels` of a dataset."
                )
        spaces = unite_label_spaces(loaded, unknown)
        for note in spaces.notes:
            logger.warning(note)
        return [spaces.tasks.get(task.name, task) for task in self.tasks]


def named_datasets(given: Any) -> dict[str, Any] | None:
    """Return datasets by name: a dict of datasets unchanged, and a single dataset under its name or `data`.

    The result is None if the value is neither a dataset nor a dict.
    """
    if isinstance(given, EncodedDataset | EncodedStream):
        return {given.name: given}
    if isinstance(given, Dataset | DatasetDict | IterableDataset | IterableDatasetDict):
        return {"data": given}
    return dict(given) if isinstance(given, Mapping) else None


def _of_dataset(given: ColumnNames | None, name: str, what: str, example: str) -> dict[str, Any]:
    """Return the columns of a dataset.

    Raises:
        DataError: if the columns are not given.
    """
    if given is None:
        raise DataError(f"{name}: a raw dataset needs `{what}=`, such as {example}. Found None.")
    if all(not isinstance(value, Mapping) or "column" in value for value in given.values()):
        return dict(given)
    of_dataset = given.get(name, next(iter(given.values())) if len(given) == 1 else None)
    if not isinstance(of_dataset, Mapping):
        raise DataError(
            f"`{what}` should give the columns of each dataset, such as {{{name!r}: {example}}}. Found no columns of "
            f"{name!r}, only of {', '.join(map(repr, given))}."
        )
    return dict(of_dataset)


def _rows_of(dataset: Any, name: str, split: str) -> Dataset:
    """Return the rows of a raw dataset, or of the split of a `DatasetDict`.

    Raises:
        DataError: if the value is not a dataset that can be read at once, or has no such split.
    """
    if isinstance(dataset, DatasetDict | IterableDatasetDict):
        if split not in dataset:
            raise DataError(f"{name}: the DatasetDict has no split {split!r}. Found {', '.join(map(str, dataset))}.")
        dataset = dataset[split]
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{name}: an IterableDataset is read during training, and its number of rows is unknown. Encode it first: "
            f"encode(…, num_rows=…)."
        )
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{name}: a dataset should be an EncodedDataset (see `encode`) or a datasets.Dataset. Found "
            f"{type(dataset).__name__}."
        )
    return dataset


def _unknown_labels(rows: Dataset, name: str, task: Task) -> list[str]:
    """Return the labels of a task in canonical rows that its label space does not have.

    Raises:
        DataError: if the label space is empty, or has no label of the rows.
    """
    if not task.kind.has_label_space or LABEL_PREFIX + task.name not in rows.column_names:
        return []
    found = label_names(rows, task)
    if found and not task.labels:
        raise DataError(
            f"{name}: task {task.name!r} has no labels, and the rows have {shown(found)}. Give the task its `labels`, "
            f"or pass the raw dataset to TaskMixture, whose `tasks` have the labels of the training rows."
        )
    outside = {"O"}  # words outside of all spans
    if set(found) - outside and not (set(found) & set(task.labels)) - outside:
        raise DataError(
            f"{name}: the label space of task {task.name!r} has no label of the rows. The task has "
            f"{shown(task.labels)}; the rows have {shown(found)}. Use the same names in both."
        )
    return [label for label in found if label not in task.labels]


def shown(labels: Iterable[str]) -> str:
    """Return the first names of labels for a message, and the number of the other names."""
    names = list(labels)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{label!r:.40}" for label in names[:_SHOWN]) + more


def check_training_labels(name: str, dataset: EncodedDataset | EncodedStream) -> None:
    """Check that the label spaces have all labels of training rows, which would have no loss otherwise.

    Args:
        name: the name of the dataset.
        dataset: the dataset. The unknown labels of a stream are not known.

    Raises:
        DataError: if a label is missing in a label space; the message names the labels.
    """
    if isinstance(dataset, EncodedStream):
        return
    for task, unknown in dataset.unknown_labels.items():
        raise DataError(
            f"{name}: the training rows have the labels {shown(unknown)}, which task {task!r} does not have. The task "
            f"has {shown(dataset.label_spaces[task])}. Add the labels to the task, or remove them from the rows."
        )


def check_label_spaces(name: str, dataset: EncodedDataset | EncodedStream, tasks: Mapping[str, Task]) -> None:
    """Check that a dataset was encoded for the tasks of a model.

    Args:
        name: the name of the dataset.
        dataset: the dataset.
        tasks: the model's tasks by name.

    Raises:
        DataError: if the model has no such task, or the label space of a task is different; the message names both.
    """
    for task in dataset.feeds:
        if task not in tasks:
            raise DataError(
                f"{name}: has labels for task {task!r}, and the model has {', '.join(tasks)}. Encode the data again "
                f"with labels of the model's tasks."
            )
    for task, labels in dataset.label_spaces.items():
        if tuple(tasks[task].labels) != labels:
            raise DataError(
                f"{name}: the label space of task {task!r} differs between data and model. The data was encoded with "
                f"{shown(labels)}; the model has {shown(tasks[task].labels)}. Encode the data with the model's tasks."
            )
