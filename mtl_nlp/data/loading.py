"""Loading of a recipe's dataset, with its splits in canonical form."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, IterableDataset

from mtl_nlp.data.canonical import LABEL_PREFIX, canonical_rows, class_names_of, progress_bars_from, reading
from mtl_nlp.data.raw import expected_rows, load_raw
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.sections import SPLITS, DatasetRecipe

logger = logging.getLogger(__name__)

_SCHEMA_ROWS = 10_000
"""Number of first rows from which a stream's types are inferred, as many as `datasets` reads from CSV at once."""
_VALIDATION_SEED = 0
_DRAW_SEED = 0


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in canonical form.

    Attributes:
        splits: split -> rows, see `canonical_rows`.
        class_names: task -> the names of its ClassLabel column in order, or None for a column of a different type.
            For a stream, names that were found in the rows instead of None.
        stream: the training split if it is streamed; `splits` then has no training split.
        num_rows: number of rows in the stream, given or counted.
        drawn_from: split -> the number of rows from which `max_rows` has drawn; only splits that have lost rows.
    """

    splits: dict[str, Dataset]
    class_names: dict[str, list[str] | None]
    stream: IterableDataset | None = None
    num_rows: int = 0
    drawn_from: dict[str, int] = field(default_factory=dict)

    def can_train(self, task: str) -> bool:
        """Return whether any training row can have a label for the task."""
        return self.stream is not None or has_labels(self.splits["train"], task)


def load_splits(name: str, recipe: DatasetRecipe, tasks: Mapping[str, Task], only: str | None = None) -> LoadedDataset:
    """Load a dataset and bring its splits into canonical form.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.
        tasks: all tasks by name.
        only: the only split to load; by default all existing splits of `train`, `validation` and `test`.

    Returns:
        The dataset, without any split if the split `only` does not exist.

    Raises:
        DataError: if a file or split is missing or cannot be read, there is no training split, a split is empty, or a
            row is invalid.
    """
    logger.info("loading dataset %s", name)
    raw = _select_splits(name, recipe, only)
    if recipe.streaming:
        stream = raw.pop("train", None)
        raw = {split: _read_all(f"{name}/{split}", rows) for split, rows in raw.items()}
        if stream is not None:
            return _draw(_with_stream(name, recipe, tasks, stream, raw), recipe.max_rows)
    canonical = {split: _canonical(f"{name}/{split}", recipe, tasks, rows) for split, rows in raw.items()}
    if recipe.validation_size is not None and "train" in canonical:
        canonical |= _set_aside(name, canonical["train"], recipe.validation_size)
    class_names = {
        task: class_names_of(rows.features[column]) for rows in raw.values() for task, column in recipe.labels.items()
    }
    kept = {split: rows for split, rows in canonical.items() if only in {None, split}}
    return _draw(LoadedDataset(kept, class_names), recipe.max_rows)


def has_labels(rows: Dataset, task: str) -> bool:
    """Return whether any canonical row has a label for the task."""
    column = rows.data.column(LABEL_PREFIX + task)
    return column.null_count < len(column)


def _select_splits(name: str, recipe: DatasetRecipe, only: str | None) -> dict[str, Any]:
    """Load the raw splits, and return the needed splits under the names `train`, `validation` and `test`."""
    if recipe.streaming and only == "train":
        raise DataError(f"datasets.{name}.streaming: a streamed split cannot be evaluated. Leave out `streaming`.")
    stored = load_raw(name, recipe)
    for split, own in recipe.splits.items():
        if own not in stored:
            raise DataError(f"datasets.{name}.splits.{split}: no split {own!r}. {did_you_mean(own, stored)}")
    names = {split: recipe.splits.get(split, split) for split in SPLITS}
    raw = {split: stored[own] for split, own in names.items() if own in stored}
    if only is None and "train" not in raw:
        raise DataError(
            f"datasets.{name}: no split {names['train']!r} to train on. The dataset has {', '.join(stored)}."
        )
    if recipe.validation_size is not None and ("validation" in raw or "train" not in raw):
        raise DataError(f"datasets.{name}.validation_size: needs a train split and no validation split. Leave it out.")
    if only is None:
        return raw
    source = "train" if only == "validation" and recipe.validation_size is not None else only
    return {split: rows for split, rows in raw.items() if split == source}


def _canonical(name: str, recipe: DatasetRecipe, tasks: Mapping[str, Task], rows: Any) -> Any:
    return canonical_rows(rows, name, inputs=recipe.inputs, labels=recipe.labels, tasks=tasks)


def _set_aside(name: str, rows: Dataset, size: float | int) -> dict[str, Dataset]:
    """Split the training rows into training and validation rows.

    The rows are checked before they are split, so that messages name their positions in the file.
    """
    try:
        parts = rows.train_test_split(test_size=size, seed=_VALIDATION_SEED)
    except ValueError as error:
        raise DataError(f"datasets.{name}.validation_size: {one_line(error)}") from error
    # Flattened, since code that reads a complete column ignores the indices of a split.
    return {"train": _flattened(parts["train"]), "validation": _flattened(parts["test"])}


def _flattened(rows: Dataset) -> Dataset:
    with progress_bars_from(len(rows)):
        return rows.flatten_indices()


def _draw(loaded: LoadedDataset, max_rows: Mapping[str, int]) -> LoadedDataset:
    """Return a dataset whose splits have at most the given number of rows, drawn at random and in their own order.

    The rows were checked before, so that messages name their positions in the file. The seed is fixed, so that all runs
    of a comparison have the same rows.
    """
    larger = {split: len(rows) for split, rows in loaded.splits.items() if len(rows) > max_rows.get(split, len(rows))}
    drawn = {}
    for split, size in larger.items():
        chosen = np.random.default_rng(_DRAW_SEED).permutation(size)[: max_rows[split]]
        drawn[split] = _flattened(loaded.splits[split].select(np.sort(chosen)))
    return replace(loaded, splits={**loaded.splits, **drawn}, drawn_from=larger)


def _with_stream(
    name: str, recipe: DatasetRecipe, tasks: Mapping[str, Task], stream: IterableDataset, raw: Mapping[str, Dataset]
) -> LoadedDataset:
    """Return a dataset with a streamed training split; the stream is read once unless its number of rows is given."""
    if stream.features is None:  # for files without a schema, types are inferred from rows
        stream = stream.cast(_read_all(f"{name}/train", stream.take(_SCHEMA_ROWS)).features)
    rows = _canonical(f"{name}/train", recipe, tasks, stream)
    others = {split: _canonical(f"{name}/{split}", recipe, tasks, split_rows) for split, split_rows in raw.items()}
    with_names = {task: tasks[task] for task in recipe.labels if tasks[task].kind.has_label_space}
    class_names = {task: class_names_of(stream.features[recipe.labels[task]]) for task in with_names}
    num_rows = recipe.num_rows
    if num_rows is None:
        with progress_bars_from(expected_rows(recipe)), reading(f"{name}/train"):
            num_rows, found = _count_rows_and_labels(f"{name}/train", rows, with_names)
        class_names = {task: class_names[task] or found[task] for task in with_names}
        if num_rows == 0:
            raise DataError(f"{name}/train: the split has no rows.")
    for task, names in class_names.items():
        if names is None:
            raise DataError(
                f"datasets.{name}.num_rows: the label names of task {task!r} are only known when all rows are read. "
                f"Leave `num_rows` out, so that all rows are read before training."
            )
    return LoadedDataset(others, class_names | dict.fromkeys(recipe.labels.keys() - with_names), rows, num_rows)


def _read_all(name: str, rows: IterableDataset) -> Dataset:
    """Read all rows of a stream into memory."""
    with reading(name):
        found = list(rows)
        if not found:
            raise DataError(f"{name}: the split has no rows.")
        return Dataset.from_list(found, features=rows.features)


def _count_rows_and_labels(
    name: str, rows: IterableDataset, tasks: Mapping[str, Task]
) -> tuple[int, dict[str, list[str]]]:
    """Read and check all rows of a stream once.

    Returns:
        The number of rows, and for each task the sorted label names found in the rows.
    """
    count, names = 0, {task: set[str]() for task in tasks}
    for row in datasets.utils.tqdm(rows, desc=f"Reading {name}", unit=" rows"):
        count += 1
        for name_of_task, task in tasks.items():
            if row[LABEL_PREFIX + name_of_task] is not None:
                names[name_of_task].update(task.kind.names_in(row[LABEL_PREFIX + name_of_task]))
    return count, {task: sorted(found) for task, found in names.items()}
