"""From a recipe's dataset to its splits in canonical form."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    IterableDatasetDict,
    List,
    Value,
    load_dataset,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from mtl_nlp.data.canonical import (
    LABEL_PREFIX,
    SLOW_ROWS,
    canonical_rows,
    class_names_of,
    code_fingerprint,
    progress_bars_from,
    reading,
)
from mtl_nlp.data.conll import CONLLU_COLUMNS, read_conll, read_conllu
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.sections import SPLITS, DatasetRecipe

_SCHEMA_ROWS = 10_000  # as many as `datasets` takes from a CSV file at once
_READERS: dict[str, Any] = {"conll": read_conll, "conllu": read_conllu}
_BYTES_A_ROW = 500
_VALIDATION_SEED = 0
_CSV_OPTIONS: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
"""pandas would take texts and labels such as `NA`, `None` and `nan` for missing ones."""


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in canonical form.

    Attributes:
        splits: see `canonical_rows`.
        class_names: for each task the names of its ClassLabel column in their order, None if it is none; of a streamed
            one those that occur.
        stream: the training split in place of one in `splits`, if it is streamed.
        num_rows: its rows, as given or counted.
    """

    splits: dict[str, Dataset]
    class_names: dict[str, list[str] | None]
    stream: IterableDataset | None = None
    num_rows: int = 0

    def can_train(self, task: str) -> bool:
        """Whether a training row may have a label for the task."""
        return self.stream is not None or has_labels(self.splits["train"], task)


def load_splits(name: str, recipe: DatasetRecipe, tasks: Mapping[str, Task], only: str | None = None) -> LoadedDataset:
    """Load a dataset and bring its splits into canonical form.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: where it is and what it feeds.
        tasks: all tasks by name.
        only: one split to load alone; all of `train`, `validation`, `test` that the dataset has by default.

    Returns:
        The dataset; without any split if it has not the one asked for.

    Raises:
        DataError: if something cannot be found or read, there is nothing to train on, a split is empty, or a row is not
            valid.
    """
    loaded = _load(name, recipe)
    for split, own in recipe.splits.items():
        if own not in loaded:
            raise DataError(f"datasets.{name}.splits.{split}: no split {own!r}. {did_you_mean(own, loaded)}")
    names = {split: recipe.splits.get(split, split) for split in SPLITS}
    raw = {split: loaded[own] for split, own in names.items() if own in loaded}
    if recipe.streaming and only == "train":
        raise DataError(f"datasets.{name}.streaming: a streamed split cannot be evaluated. Leave out `streaming`.")
    stream = raw.pop("train", None) if recipe.streaming else None
    if recipe.streaming:
        raw = {split: _read_whole(f"{name}/{split}", rows) for split, rows in raw.items() if only in {None, split}}
    if only is None and stream is not None:
        return _load_stream(name, recipe, tasks, stream, raw)
    if only is None and "train" not in raw:
        raise DataError(f"datasets.{name}: no split {names['train']!r} to train on. It has {', '.join(loaded)}.")
    from_train = recipe.validation_size is not None
    if from_train and ("validation" in raw or "train" not in raw):
        raise DataError(f"datasets.{name}.validation_size: needs a train split and no validation split; leave it out.")
    wanted = {"train"} if only == "validation" and from_train else {only}
    canonical = {
        split: canonical_rows(rows, f"{name}/{split}", inputs=recipe.inputs, labels=recipe.labels, tasks=tasks)
        for split, rows in raw.items()
        if only is None or split in wanted
    }
    if from_train and "train" in canonical:
        canonical |= _set_aside(name, canonical["train"], recipe.validation_size)
    class_names = {
        task: class_names_of(rows.features[column]) for rows in raw.values() for task, column in recipe.labels.items()
    }
    splits = {split: rows for split, rows in canonical.items() if only is None or split == only}
    return LoadedDataset(splits, class_names if splits else {})


def _load_stream(
    name: str, recipe: DatasetRecipe, tasks: Mapping[str, Task], stream: IterableDataset, raw: Mapping[str, Dataset]
) -> LoadedDataset:
    """A dataset whose training split is streamed; read through once unless the number of its rows is given."""
    if stream.features is None:  # files without a schema tell theirs with the first row
        stream = stream.cast(_read_whole(f"{name}/train", stream.take(_SCHEMA_ROWS)).features)
    rows, *others = (
        canonical_rows(split_rows, f"{name}/{split}", inputs=recipe.inputs, labels=recipe.labels, tasks=tasks)
        for split, split_rows in [("train", stream), *raw.items()]
    )
    fed = {task: tasks[task] for task in recipe.labels if tasks[task].kind.has_label_space}
    class_names = {task: class_names_of(stream.features[recipe.labels[task]]) for task in fed}
    num_rows = recipe.num_rows
    if num_rows is None:
        with progress_bars_from(_rows_to_expect(recipe)), reading(f"{name}/train"):
            num_rows, found = _read_through(f"{name}/train", rows, fed)
        class_names = {task: class_names[task] or found[task] for task in fed}
        if num_rows == 0:
            raise DataError(f"{name}/train: the split has no rows.")
    for task, names in class_names.items():
        if names is None:
            raise DataError(
                f"datasets.{name}.num_rows: the label names of task {task!r} are only known when all rows are read. "
                f"Leave `num_rows` out, then they are."
            )
    return LoadedDataset(
        dict(zip(raw, others, strict=True)), class_names | dict.fromkeys(recipe.labels.keys() - fed), rows, num_rows
    )


def _read_whole(name: str, rows: IterableDataset) -> Dataset:
    """The rows of a stream that are wanted at once."""
    with reading(name):
        found = list(rows)
        if not found:
            raise DataError(f"{name}: the split has no rows.")
        return Dataset.from_list(found, features=rows.features)


def _read_through(name: str, rows: IterableDataset, tasks: Mapping[str, Task]) -> tuple[int, dict[str, list[str]]]:
    """Check all rows of a stream once.

    Returns:
        The number of rows, and for each task the label names that occur, sorted.
    """
    count, names = 0, {task: set[str]() for task in tasks}
    for row in datasets.utils.tqdm(rows, desc=f"Reading {name}", unit=" rows"):
        count += 1
        for name_of_task, task in tasks.items():
            if row[LABEL_PREFIX + name_of_task] is not None:
                names[name_of_task].update(task.kind.names_in(row[LABEL_PREFIX + name_of_task]))
    return count, {task: sorted(found) for task, found in names.items()}


def _set_aside(name: str, rows: Dataset, size: float | int | None) -> dict[str, Dataset]:
    """A part of the training rows for validation. After they are checked, so that messages have the file's rows."""
    try:
        parts = rows.train_test_split(test_size=size, seed=_VALIDATION_SEED)
    except ValueError as error:
        raise DataError(f"datasets.{name}.validation_size: {one_line(error)}") from error
    # Without a mapping of indices, which whole columns would not see.
    return {"train": parts["train"].flatten_indices(), "validation": parts["test"].flatten_indices()}


def has_labels(rows: Dataset, task: str) -> bool:
    """Whether any canonical row has a label for the task."""
    column = rows.data.column(LABEL_PREFIX + task)
    return column.null_count < len(column)


def _load(name: str, recipe: DatasetRecipe) -> DatasetDict | IterableDatasetDict:
    """All splits, raw."""
    for split, patterns in (recipe.data_files or {}).items() if recipe.reads_files else ():
        for pattern in patterns:
            if "://" not in pattern and not glob.glob(pattern):
                raise DataError(f"datasets.{name}.data_files.{split}: no file {pattern}.")
    try:
        if recipe.path in _READERS:
            splits = {split: _load_conll(recipe, files) for split, files in (recipe.data_files or {}).items()}
            return IterableDatasetDict(splits) if recipe.streaming else DatasetDict(splits)
        with progress_bars_from(_rows_to_expect(recipe)):
            options = (_CSV_OPTIONS if recipe.path == "csv" else {}) | (recipe.model_extra or {})
            options |= {"streaming": True} if recipe.streaming else {}
            loaded = load_dataset(recipe.path, data_files=recipe.data_files, **options)
    except StopIteration as error:
        raise DataError(f"datasets.{name}: cannot be read: a file is empty.") from error
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        raise DataError(f"datasets.{name}: cannot be read: {type(cause).__name__}: {one_line(cause)}") from error
    except (DatasetNotFoundError, OSError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        for key in recipe.model_extra or {}:
            if f"'{key}'" in str(error):
                valid = [*DatasetRecipe.model_fields, *inspect.signature(load_dataset).parameters]
                raise DataError(
                    f"datasets.{name}.{key}: neither a key of a dataset nor an argument of load_dataset for "
                    f"{recipe.path}. {did_you_mean(key, set(valid))}"
                ) from error
        raise DataError(f"datasets.{name}: cannot be loaded: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(loaded, DatasetDict | IterableDatasetDict):
        raise DataError(f"datasets.{name}: expected all splits of a dataset. Leave out `split`.")
    return loaded


def _rows_to_expect(recipe: DatasetRecipe) -> int:
    """About how many rows the dataset's local files have; `SLOW_ROWS` if it is not made of such."""
    patterns = [pattern for patterns in (recipe.data_files or {}).values() for pattern in patterns]
    if not recipe.reads_files or any("://" in pattern for pattern in patterns):
        return SLOW_ROWS
    return sum(os.path.getsize(path) for pattern in patterns for path in glob.glob(pattern)) // _BYTES_A_ROW


def _load_conll(recipe: DatasetRecipe, patterns: Sequence[str]) -> Dataset | IterableDataset:
    """One split of `conll` or `conllu` files, cached on disk until a file changes; or a stream, in parts by file."""
    files = sorted(path for pattern in patterns for path in glob.glob(pattern))
    word_columns = recipe.columns or list(CONLLU_COLUMNS)
    wanted = list(dict.fromkeys([*recipe.inputs.values(), *recipe.labels.values()]))
    features = {column: List(Value("string")) if column in word_columns else Value("string") for column in wanted}
    sources = [(file, os.path.getsize(file), Path(file).stat().st_mtime_ns) for file in files]
    # The cache's key: from_generator itself does not notice a changed file or reader. Tuples, because it takes lists
    # for shards.
    arguments = {
        "sources": sources if recipe.streaming else tuple(sources),
        "reader": recipe.path,
        "columns": None if recipe.columns is None else tuple(recipe.columns),
        "wanted": tuple(wanted),
        "in_parts": recipe.streaming,
        "code": code_fingerprint(),
    }
    if recipe.streaming:
        return IterableDataset.from_generator(_conll_rows, features=Features(features), gen_kwargs=arguments)
    with progress_bars_from(sum(size for _, size, _ in sources) // _BYTES_A_ROW):
        return Dataset.from_generator(_conll_rows, features=Features(features), gen_kwargs=arguments)


def _conll_rows(
    sources: Sequence[tuple],
    reader: str,
    columns: Sequence[str] | None,
    wanted: Sequence[str],
    in_parts: bool,
    code: str,
) -> Iterator[dict[str, Any]]:
    """The wanted columns of every sentence; a sentence may lack a comment, but not every one of a file may."""
    arguments = () if columns is None else (columns,)
    count = 0
    for path, *_ in sources:
        seen: set[str] = set()
        for row in _READERS[reader](path, *arguments):
            count += 1
            seen.update(row)
            yield {column: row.get(column) for column in wanted}
        for column in wanted:
            if seen and column not in seen:
                raise DataError(f"{path}: no column or comment {column!r}. {did_you_mean(column, seen)}")
    if not count and not in_parts:
        raise DataError(f"{', '.join(path for path, *_ in sources)}: there is no sentence; the split has no rows.")
