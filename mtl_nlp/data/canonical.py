"""Rows in canonical form: inputs, and one checked label column per task."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.label_reading import EMPTY, MISALIGNED, MOVED, OVERLAPPING, UNLABELLED, LabelReader, is_null
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.modeling.label_kinds_multitask import Feature, LabelKind
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict
from mtl_nlp.modeling.text_kinds_multitask import LARGEST_NUMBER, check_fits_float32
from mtl_nlp.modeling.windows_multitask import added_tokens
from mtl_nlp.modeling.words_multitask import Word, split_words
from mtl_nlp.recipe.label_columns import LabelColumns, LabelMaps, LabelSource, check_label_columns

LABEL_PREFIX = "label:"
"""The prefix of label columns, `label:<task>`, so that names of tasks and inputs never collide."""
RENAMED_PREFIX = "renamed:"
"""The prefix of columns with the entries of `label_map` that rename a name in the data, `renamed:<task>`."""
WEIGHT = "weight"
"""The column with the weight of each row in the mean loss, in a dataset that gives weights."""
REPAIRED = "repaired"
"""The column with the number of illegal span tags per row that were repaired."""
COUNTS = (UNLABELLED, MISALIGNED, MOVED, OVERLAPPING, EMPTY)
"""The columns with the numbers of words, spans and cells not used as they are; a dataset may lack any of them."""
SLOW_ROWS = 20_000
"""The number of rows from which a pass over a dataset takes more than a few seconds and shows a progress bar."""
_AnyDataset = TypeVar("_AnyDataset", Dataset, IterableDataset)


@functools.cache
def code_fingerprint() -> str:
    """Return a fingerprint of the code that makes rows and windows.

    The fingerprint is part of the caches' keys, since `datasets` notices changes only in the mapped function.
    """
    folder = Path(__file__).parents[1]
    sources = [*folder.glob("data/*.py"), *folder.glob("modeling/*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()


def outside_code(tasks: Iterable[Task]) -> str:
    """Return the code of task types and label kinds from outside of this package, as a part of the caches' keys.

    The code is that of the classes' modules, since a class may use constants and functions of its module. A class
    without source code, such as a class from an interactive interpreter, contributes only its name.
    """
    classes = {each for task in tasks for made in (task, task.kind) for each in type(made).__mro__}
    found = {}
    for each in classes:
        if each.__module__.split(".")[0] not in {"mtl_nlp", "abc", "builtins"}:
            name = f"{each.__module__}.{each.__qualname__}"
            try:
                found[name] = inspect.getsource(sys.modules[each.__module__])
            except (OSError, TypeError):
                found[name] = ""
    return "".join(f"\n{name}\n{found[name]}" for name in sorted(found))


def canonical_rows(
    dataset: _AnyDataset,
    name: str,
    *,
    inputs: Mapping[str, str],
    labels: Mapping[str, LabelColumns],
    tasks: Mapping[str, Task],
    weight: str | None = None,
    label_map: LabelMaps | None = None,
    keeps_missing: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    empty_cells: bool = False,
) -> _AnyDataset:
    """Check a dataset and rename its columns: inputs `tokens`, or `text` and `text_pair`; labels `label:<task>`.

    Class labels become names, and illegal span tags are repaired (column `repaired` has the number of repairs). A text
    with character spans is split into words, and becomes the input `tokens`. A row may lack labels (null), but not its
    input, unless `keeps_missing` is set. The columns of `COUNTS` have the numbers of words and spans that are not used.

    Args:
        dataset: the raw rows; rows of an `IterableDataset` are checked while they are read.
        name: the name of the dataset in messages.
        inputs: canonical input -> column.
        labels: task -> column, or columns and options, see `LabelSource`.
        tasks: all tasks by name.
        weight: the column with the weights of the rows, if there is one.
        label_map: task -> name in the data -> new name, see `LabelMaps`. The column `renamed:<task>` has the
            entries that were used, in a row of each batch.
        keeps_missing: whether rows without an input (null or NaN) are kept, with null as input and without any label;
            see `mtl_nlp.data.missing`.
        tokenizer: the model's tokenizer, whose added tokens are one word of a text, see `added_tokens`.
        empty_cells: whether a missing text with names between delimiters is a set without names, as in a CSV file.

    Raises:
        DataError: if the labels do not fit the inputs or tasks, a column is missing, there are no rows, or a row is
            invalid. The message has the row's number from 0; for a stream, rows are numbered in reading order, which
            may differ between passes.
    """
    columns, maps = dataset.column_names or [], label_map or {}
    try:
        check_label_columns(inputs, labels, maps, tasks)
    except ValueError as error:
        raise DataError(f"{name}: {error}.") from error
    needed: list[tuple[str, str]] = [*inputs.items()]
    needed += [(task_name, column) for task_name in labels for column in LabelSource.of(labels[task_name]).columns]
    needed += [] if weight is None else [(WEIGHT, weight)]
    for key, column in needed:
        if column not in columns:
            raise DataError(f"{name}: no column {column!r} (for {key}). {did_you_mean(column, columns)}")
    is_stream = isinstance(dataset, IterableDataset)
    if not is_stream and len(dataset) == 0:
        raise DataError(f"{name}: the split has no rows.")
    arguments: dict[str, Any] = {
        "function": _canonical_batch,
        "batched": True,
        "with_indices": True,
        "remove_columns": columns,
        "features": _canonical_features(
            inputs, labels, tasks, maps, [] if weight is None else [WEIGHT], empty_cells=empty_cells
        ),
        "fn_kwargs": {
            "name": name,
            "inputs": dict(inputs),
            "labels": dict(labels),
            "weight": weight,
            "keeps_missing": keeps_missing,
            "whole": [] if tokenizer is None else added_tokens(tokenizer),
            # Without label spaces, since checks do not need them and they would change the cache's key.
            "tasks": {task_name: tasks[task_name].as_given().to_dict() for task_name in labels},
            "class_names": _class_names(name, labels, tasks, dataset.features, maps),
            "label_map": {task_name: dict(names) for task_name, names in maps.items()},
            "counts": _counts(inputs, labels, tasks, empty_cells=empty_cells),
            "empty_cells": empty_cells,
            "code": code_fingerprint() + outside_code(tasks[task_name] for task_name in labels),
        },
    }
    if is_stream:
        return dataset.map(**arguments)
    try:
        with progress_bars_from(len(dataset)):
            return dataset.map(**arguments, desc=f"Checking {name}")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: a text is not UTF-8: {one_line(error)}. Save the data as UTF-8.") from error


def _class_names(
    name: str,
    labels: Mapping[str, LabelColumns],
    tasks: Mapping[str, Task],
    features: Mapping[str, Any] | None,
    label_map: LabelMaps,
) -> dict[str, Sequence[str] | None]:
    """Return the names of each task's ClassLabel column, see `reader_of`."""
    try:
        return {
            task_name: reader_of(tasks[task_name], given, features, label_map).class_names
            for task_name, given in labels.items()
        }
    except ValueError as error:
        raise DataError(f"{name}, {error}.") from error


def _counts(
    inputs: Iterable[str], labels: Mapping[str, LabelColumns], tasks: Mapping[str, Task], *, empty_cells: bool
) -> list[str]:
    """Return the columns with numbers of words, spans and cells that a dataset's labels need."""
    has_words = any(tasks[task_name].kind.labels_words for task_name in labels)
    of_spans = [MISALIGNED, MOVED, OVERLAPPING] if "text" in inputs else []
    of_words = [UNLABELLED, *of_spans] if has_words else []
    has_cells = empty_cells and any(LabelSource.of(given).delimiter is not None for given in labels.values())
    return [REPAIRED, *of_words, *([EMPTY] if has_cells else [])]


def _canonical_features(
    inputs: Iterable[str],
    labels: Mapping[str, LabelColumns],
    tasks: Mapping[str, Task],
    label_map: LabelMaps,
    weights: Iterable[str],
    *,
    empty_cells: bool,
) -> Features:
    """Return the types of the canonical columns."""
    counts = _counts(inputs, labels, tasks, empty_cells=empty_cells)
    is_split = MISALIGNED in counts  # the text is split into words
    keys = ["tokens" if is_split and key == "text" else key for key in inputs]
    features = {key: Value("string") if key != "tokens" else List(Value("string")) for key in keys}
    for task_name in labels:
        features[LABEL_PREFIX + task_name] = arrow_feature(tasks[task_name].kind.label_feature)
    features |= {RENAMED_PREFIX + task_name: List(Value("string")) for task_name in label_map}
    return Features(features | dict.fromkeys(counts, Value("int32")) | dict.fromkeys(weights, Value("float32")))


@contextlib.contextmanager
def progress_bars_from(rows: int) -> Iterator[None]:
    """Show the progress bars of `datasets` only if there are at least `SLOW_ROWS` rows.

    Args:
        rows: number of rows, exact or estimated.
    """
    if rows >= SLOW_ROWS or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


@contextlib.contextmanager
def reading(name: str, flaw: Callable[[], DataError | None] = lambda: None) -> Iterator[None]:
    """Turn an error of `datasets` while rows are read into a `DataError` with a one-line message.

    Args:
        name: dataset and split, for messages.
        flaw: a function that returns an error about the flaw of a file, if it finds one.
    """
    try:
        yield
    except DataError:
        raise
    # EOFError and zlib.error: a compressed file that is truncated or damaged.
    except (DatasetGenerationError, OSError, ValueError, TypeError, EOFError, zlib.error) as error:
        unnamed = DataError(f"{name}: cannot be read: {type(error).__name__}: {one_line(error)}")
        raise flaw() or unnamed from error


def arrow_feature(feature: Feature) -> Any:
    """Return the feature of `datasets` for the plain feature of a label kind."""
    return List(Value(feature.dtype)) if feature.is_list else Value(feature.dtype)


def _canonical_batch(
    batch: Mapping[str, list],
    indices: Sequence[int],
    *,
    name: str,
    inputs: Mapping[str, str],
    labels: Mapping[str, LabelColumns],
    weight: str | None,
    tasks: Mapping[str, dict[str, Any]],
    class_names: Mapping[str, list[str] | None],
    label_map: LabelMaps,
    counts: Sequence[str],
    keeps_missing: bool,
    whole: Sequence[str],
    empty_cells: bool,
    code: str,
) -> dict[str, list]:
    columns: dict[str, list] = {key: batch[column] for key, column in inputs.items()}
    if keeps_missing:
        columns = {key: [None if is_null(value) else value for value in values] for key, values in columns.items()}
    missing = {n for values in columns.values() for n, value in enumerate(values) if keeps_missing and value is None}
    for key, values in columns.items():
        for index, value in zip(indices, values, strict=True):
            if value is not None or not keeps_missing:
                _check_input(f"{name}, row {index}", key, value)
    kinds = {task_name: task_from_dict(tasks[task_name]) for task_name in labels}
    texts, words = _split(columns, kinds, len(indices), whole)
    counted = {count: [0] * len(indices) for count in counts}
    for task_name, given in labels.items():
        source, kind = LabelSource.of(given), kinds[task_name].kind
        reader = LabelReader(
            kinds[task_name], source, class_names[task_name], label_map.get(task_name, {}), empty_cells
        )
        checked: list[Any] = []
        rows = zip(*(batch[column] for column in source.columns), strict=True)
        for position, (index, row) in enumerate(zip(indices, rows, strict=True)):
            where = f"{name}, row {index}, {source.place}"
            if position in missing:
                checked.append(None)
                continue
            try:
                label = reader.read(row, texts[position], words[position])
                canonical = None if label is None else _checked(kind, label)
            except ValueError as error:
                raise DataError(f"{where}: {str(error).rstrip('.')}.") from error
            if canonical is not None and kind.labels_words and len(canonical) != len(columns["tokens"][position]):
                raise DataError(f"{where}: {len(columns['tokens'][position])} tokens but {len(canonical)} labels.")
            if canonical is not None:
                counted[REPAIRED][position] += kind.count_repairs(label, canonical)
                for count, number in reader.counts.items():
                    counted[count][position] += number
            checked.append(canonical)
        columns[LABEL_PREFIX + task_name] = checked
        if task_name in label_map:
            columns[RENAMED_PREFIX + task_name] = [sorted(reader.met), *([] for _ in indices[1:])]
    if weight is not None:
        columns[WEIGHT] = [
            _read_weight(f"{name}, row {index}, column {weight!r}", value)
            for index, value in zip(indices, batch[weight], strict=True)
        ]
    return columns | counted


def _split(
    columns: dict[str, list], tasks: Mapping[str, Task], rows: int, whole: Sequence[str]
) -> tuple[list[str | None], list[list[Word]]]:
    """Replace the column `text` by `tokens` if a task labels words, and return the texts and their words."""
    if "text" not in columns or not any(task.kind.labels_words for task in tasks.values()):
        return [None] * rows, [[] for _ in range(rows)]
    texts = columns.pop("text")
    words = [[] if text is None else split_words(text, whole) for text in texts]
    columns["tokens"] = [
        None if text is None else [word.text for word in found] for text, found in zip(texts, words, strict=True)
    ]
    return texts, words


def _checked(kind: LabelKind, label: Any) -> Any:
    """Return a label in canonical form.

    Raises:
        ValueError: if the label is not valid, or has a number that float32 cannot hold.
    """
    canonical = kind.check(label)
    if kind.label_feature.dtype.startswith("float"):
        check_fits_float32(canonical if kind.label_feature.is_list else [canonical])
    return canonical


def _read_weight(where: str, value: Any) -> float:
    """Return the weight of a row, 1 for a missing weight."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= LARGEST_NUMBER:
        raise DataError(f"{where}: a weight should be a finite number of at least 0. Found {value!r:.80}.")
    return float(value)


def _check_input(where: str, key: str, value: Any) -> None:
    if key == "tokens":
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise DataError(f"{where}: `tokens` should be a list of strings. Found {value!r:.80}.")
    elif not isinstance(value, str):
        raise DataError(f"{where}: `{key}` should be a string. Found {value!r:.80}.")


def reader_of(task: Task, given: LabelColumns, features: Mapping[str, Any] | None, label_map: LabelMaps) -> LabelReader:
    """Return the reader of a task's raw labels.

    Args:
        task: the task.
        given: the task's columns, a value of `labels`.
        features: column -> its type in `datasets`, if known.
        label_map: task -> name -> new name.

    Raises:
        ValueError: if the task's `names` do not fit the names of the column.
    """
    source, maps = LabelSource.of(given), label_map.get(task.name, {})
    if features is None or source.one_hot:
        return LabelReader(task, source, None, maps)
    names = class_names_of(features[source.column], task.names)
    if names and task.names and not maps and set(names).isdisjoint(task.names.values()):
        raise ValueError(
            f"{source.place}: the classes have the names {', '.join(names):.60} already, so the `names` of the task "
            f"have no effect. Leave them out, or rename the classes with `label_map`"
        )
    return LabelReader(task, source, names, maps)


def class_names_of(feature: Any, names: Mapping[int, str] | None = None) -> list[str] | None:
    """Return the names of a column of ClassLabel, or of lists of ClassLabel; None for a column of a different type.

    Args:
        feature: the type of the column in `datasets`.
        names: number -> name, for a column whose names are numbers.

    Raises:
        ValueError: if a number has no name.
    """
    inner = feature.feature if isinstance(feature, List) else feature
    if not isinstance(inner, ClassLabel):
        return None
    own = list(inner.names)
    if names is None or not all(name.isdecimal() for name in own):
        return own
    if lacking := [name for name in own if int(name) not in names]:
        raise ValueError(f"the `names` of the task have no name for the class {lacking[0]}")
    return [names[int(name)] for name in own]
