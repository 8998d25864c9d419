"""Rows in canonical form: inputs, and one checked label column per task."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value
from datasets.exceptions import DatasetGenerationError

from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.modeling.label_kinds_multitask import LARGEST_NUMBER, Feature, check_fits_float32
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict

LABEL_PREFIX = "label:"
"""The prefix of label columns, `label:<task>`, so that names of tasks and inputs never collide."""
WEIGHT = "weight"
"""The column with the weight of each row in the mean loss, in a dataset that gives weights."""
REPAIRED = "repaired"
"""The column with the number of illegal span tags per row that were repaired."""
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
    labels: Mapping[str, str],
    tasks: Mapping[str, Task],
    weight: str | None = None,
) -> _AnyDataset:
    """Check a dataset and rename its columns: inputs `tokens`, or `text` and `text_pair`; labels `label:<task>`.

    Class labels become names, and illegal span tags are repaired (column `repaired` has the number of repairs). A row
    may lack labels (null), but not its input.

    Args:
        dataset: the raw rows; rows of an `IterableDataset` are checked while they are read.
        name: the name of the dataset in messages.
        inputs: canonical input -> column.
        labels: task -> column.
        tasks: all tasks by name.
        weight: the column with the weights of the rows, if there is one.

    Raises:
        DataError: if a column is missing, there are no rows, or a row is invalid. The message has the row's number from
            0; for a stream, rows are numbered in reading order, which may differ between passes.
    """
    columns = dataset.column_names or []
    weights: dict[str, str] = {} if weight is None else {WEIGHT: weight}
    for key, column in [*inputs.items(), *labels.items(), *weights.items()]:
        if column not in columns:
            raise DataError(f"{name}: no column {column!r} (for {key}). {did_you_mean(column, columns)}")
    is_stream = isinstance(dataset, IterableDataset)
    if not is_stream and len(dataset) == 0:
        raise DataError(f"{name}: the split has no rows.")
    for task_name in labels:
        if tasks[task_name].kind.labels_words and "tokens" not in inputs:
            raise DataError(f"{name}: task {task_name!r} labels words and needs the input `tokens`.")
    features = {key: Value("string") if key != "tokens" else List(Value("string")) for key in inputs}
    for task_name in labels:
        features[LABEL_PREFIX + task_name] = arrow_feature(tasks[task_name].kind.label_feature)
    features |= {REPAIRED: Value("int32"), **dict.fromkeys(weights, Value("float32"))}
    arguments: dict[str, Any] = {
        "function": _canonical_batch,
        "batched": True,
        "with_indices": True,
        "remove_columns": columns,
        "features": Features(features),
        "fn_kwargs": {
            "name": name,
            "inputs": dict(inputs),
            "labels": dict(labels),
            "weight": weight,
            # Without label spaces, since checks do not need them and they would change the cache's key.
            "tasks": {task_name: tasks[task_name].as_given().to_dict() for task_name in labels},
            "class_names": {column: class_names_of(dataset.features[column]) for column in labels.values()},
            "code": code_fingerprint() + outside_code(tasks[task_name] for task_name in labels),
        },
    }
    if is_stream:
        return dataset.map(**arguments)
    with progress_bars_from(len(dataset)):
        return dataset.map(**arguments, desc=f"Checking {name}")


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
def reading(name: str) -> Iterator[None]:
    """Turn an error of `datasets` while rows are read into a `DataError` with a one-line message.

    Args:
        name: dataset and split, for messages.
    """
    try:
        yield
    except DataError:
        raise
    # EOFError and zlib.error: a compressed file that is truncated or damaged.
    except (DatasetGenerationError, OSError, ValueError, TypeError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read: {type(error).__name__}: {one_line(error)}") from error


def arrow_feature(feature: Feature) -> Any:
    """Return the feature of `datasets` for the plain feature of a label kind."""
    return List(Value(feature.dtype)) if feature.is_list else Value(feature.dtype)


def _canonical_batch(
    batch: Mapping[str, list],
    indices: Sequence[int],
    *,
    name: str,
    inputs: Mapping[str, str],
    labels: Mapping[str, str],
    weight: str | None,
    tasks: Mapping[str, dict[str, Any]],
    class_names: Mapping[str, list[str] | None],
    code: str,
) -> dict[str, list]:
    columns: dict[str, list] = {key: batch[column] for key, column in inputs.items()}
    for key, values in columns.items():
        for index, value in zip(indices, values, strict=True):
            _check_input(f"{name}, row {index}", key, value)
    repaired = [0] * len(indices)
    for task_name, column in labels.items():
        kind, names = task_from_dict(tasks[task_name]).kind, class_names[column]
        checked: list[Any] = []
        for position, (index, value) in enumerate(zip(indices, batch[column], strict=True)):
            where = f"{name}, row {index}, column {column!r}"
            given = value if names is None else _read_class_label(value, names if kind.has_label_space else None)
            if given is None:
                checked.append(None)
                continue
            try:
                canonical = kind.check(given)
                if kind.label_feature.dtype.startswith("float"):
                    check_fits_float32(canonical if kind.label_feature.is_list else [canonical])
            except ValueError as error:
                raise DataError(f"{where}: {error}.") from error
            if kind.labels_words:
                words = columns["tokens"][position]
                if len(canonical) != len(words):
                    raise DataError(f"{where}: {len(words)} tokens but {len(canonical)} labels.")
            repaired[position] += kind.count_repairs(given, canonical)
            checked.append(canonical)
        columns[LABEL_PREFIX + task_name] = checked
    if weight is not None:
        rows = zip(indices, batch[weight], strict=True)
        columns[WEIGHT] = [_read_weight(f"{name}, row {index}, column {weight!r}", value) for index, value in rows]
    return columns | {REPAIRED: repaired}


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


def class_names_of(feature: Any) -> list[str] | None:
    """Return the names of a column of ClassLabel, or of lists of ClassLabel; None for a column of a different type."""
    inner = feature.feature if isinstance(feature, List) else feature
    return list(inner.names) if isinstance(inner, ClassLabel) else None


def _read_class_label(value: Any, names: Sequence[str] | None) -> Any:
    """Return ClassLabel indices as names, or unchanged without names; `datasets` uses -1 for a missing label."""
    if isinstance(value, list):
        if names is None:
            return value
        return [index if index is None else names[index] if index >= 0 else str(index) for index in value]
    if value is None or value < 0:
        return None
    return value if names is None else names[value]
