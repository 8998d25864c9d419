"""The cutting of splits: slices such as `train[:80%]`, and rows that are set aside for validation and test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset, ReadInstruction, concatenate_datasets

from mtl_nlp.data.canonical import progress_bars_from
from mtl_nlp.errors import DataError
from mtl_nlp.messages import counted, did_you_mean, one_line
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.files import names_in
from mtl_nlp.recipe.label_columns import LabelSource
from mtl_nlp.recipe.sections import SPLITS, DatasetRecipe

_SEED = 0


@dataclass(frozen=True)
class Slice:
    """Rows of a stored split that follow each other.

    Attributes:
        source: the name of the stored split.
        start: the first row.
        stop: the row after the last row.
    """

    source: str
    start: int
    stop: int


def slices_of(name: str, recipe: DatasetRecipe, sizes: Mapping[str, int]) -> dict[str, list[Slice]]:
    """Return the slices of stored splits of which each of the splits `train`, `validation` and `test` consists.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.
        sizes: stored split -> number of rows.

    Raises:
        DataError: if a value of `splits` is neither the name of a stored split nor a slice of one, or has no rows.
    """
    found = {}
    for split in SPLITS:
        own = recipe.splits.get(split, split)
        if own in sizes:
            found[split] = [Slice(own, 0, sizes[own])]
        elif split in recipe.splits:
            found[split] = _read_slices(f"datasets.{name}.splits.{split}", own, sizes)
    return found


def _read_slices(key: str, spec: str, sizes: Mapping[str, int]) -> list[Slice]:
    for source in sorted(names_in(spec) - {spec}) or [spec]:
        if source not in sizes:
            raise DataError(f"{key}: no split {source!r}. {did_you_mean(source, sizes)}")
    try:
        parts = ReadInstruction.from_spec(spec).to_absolute(dict(sizes))
    except (ValueError, AssertionError) as error:
        raise DataError(f"{key}: expected a slice such as train[:80%]. Found {spec!r}: {one_line(error)}.") from error
    slices = [Slice(part.splitname, part.from_, max(part.from_, part.to)) for part in parts]
    if not any(part.stop > part.start for part in slices):
        rows = ", ".join(f"{part.source}: {counted(sizes[part.source], 'row')}" for part in slices)
        raise DataError(f"{key}: {spec!r} has no rows ({rows}).")
    return slices


def describe_overlaps(name: str, slices: Mapping[str, Sequence[Slice]]) -> list[str]:
    """Return a sentence about each pair of splits with slices that have rows in common."""
    notes = []
    pairs = [(first, second) for number, first in enumerate(slices) for second in list(slices)[number + 1 :]]
    for first, second in pairs:
        shared = sum(
            max(0, min(one.stop, other.stop) - max(one.start, other.start))
            for one in slices[first]
            for other in slices[second]
            if one.source == other.source
        )
        if shared:
            rows = counted(shared, "row is", "rows are")
            notes.append(f"{name}: {rows} in both {first} and {second}; scores on {second} overstate the model")
    return notes


def take(rows: Mapping[str, Dataset], slices: Sequence[Slice], masks: Mapping[str, np.ndarray]) -> Dataset:
    """Return the rows of slices that a mask keeps.

    Args:
        rows: stored split -> its rows.
        slices: the slices.
        masks: stored split -> whether each row is kept, shape (rows,).
    """
    parts = []
    for part in slices:
        kept = part.start + np.flatnonzero(masks[part.source][part.start : part.stop])
        source = rows[part.source]
        parts.append(source if len(kept) == len(source) else flattened(source.select(kept)))
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def flattened(rows: Dataset) -> Dataset:
    """Return a dataset without a table of indices, since code that reads a complete column ignores such a table."""
    with progress_bars_from(len(rows)):
        return rows.flatten_indices()


def column_to_stratify_by(recipe: DatasetRecipe, tasks: Mapping[str, Task]) -> str | None:
    """Return the column whose values keep their shares in rows that are set aside; None for no column.

    Args:
        recipe: the dataset's section of the recipe.
        tasks: all tasks by name.
    """
    if recipe.stratify_by_column is not None:
        return recipe.stratify_by_column or None
    task = task_to_stratify_by(recipe.labels, tasks)
    return None if task is None else LabelSource.of(recipe.labels[task]).column


def task_to_stratify_by(labels: Iterable[str], tasks: Mapping[str, Task]) -> str | None:
    """Return the first task that gives each text one class, or None.

    Args:
        labels: the names of the tasks for which a dataset has labels.
        tasks: all tasks by name.
    """
    for name in labels:
        kind = tasks[name].kind
        if kind.has_label_space and not kind.labels_words and not kind.label_feature.is_list:
            return name
    return None


def classes_in(
    key: str, column: str, raw: Mapping[str, Dataset], slices: Sequence[Slice], masks: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the number of the class of each row that `take` returns, int64, shape (rows,); null is a class too.

    Args:
        key: the key of the recipe, for messages.
        column: the column with the classes.
        raw: stored split -> its rows as they are stored.
        slices: as in `take`.
        masks: as in `take`.

    Raises:
        DataError: if there is no such column, or its values are not names or numbers.
    """
    values = []
    for part in slices:
        source = raw[part.source]
        if column not in source.column_names:
            raise DataError(f"{key}: no column {column!r}. {did_you_mean(column, source.column_names)}")
        rows = source.select_columns([column]).select(range(part.start, part.stop)).with_format("arrow")[:]
        values += rows.column(column).filter(pa.array(masks[part.source][part.start : part.stop])).chunks
    try:
        encoded = pa.chunked_array(values).combine_chunks().dictionary_encode(null_encoding="encode")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError) as error:
        raise DataError(
            f"{key}: the column {column!r} should hold names or numbers. Found {values[0].type}."
        ) from error
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def set_aside(
    name: str, rows: Dataset, sizes: Mapping[str, float | int], classes: np.ndarray | None
) -> dict[str, Dataset]:
    """Divide training rows into training rows and the rows that are set aside for validation and test.

    The rows are put in a random order in which the rows of each class are spread evenly. The first rows are validation
    rows, and the last rows are test rows, so neither depends on the number of the others. Each class keeps its share to
    within a row, and a class with very few rows stays in training.

    Args:
        name: the dataset's name in the recipe, for messages.
        rows: the training rows.
        sizes: `validation` and `test` -> share of the rows, or number of rows.
        classes: the number of each row's class, shape (rows,); None for one class.

    Raises:
        DataError: if a size is not a share or number of the rows, or no row is left for training.
    """
    counts = {split: _count(f"datasets.{name}.{split}_size", size, len(rows)) for split, size in sizes.items()}
    if sum(counts.values()) >= len(rows):
        keys = " and ".join(f"{split}_size" for split in sizes)
        raise DataError(
            f"datasets.{name}.{keys}: {sum(counts.values())} of {counted(len(rows), 'row')} would be set aside, and "
            f"none be left for training. Choose less."
        )
    order = _spread(np.zeros(len(rows), dtype=np.int64) if classes is None else classes)
    first, last = counts.get("validation", 0), len(rows) - counts.get("test", 0)
    parts = {"train": order[first:last], "validation": order[:first], "test": order[last:]}
    return {split: flattened(rows.select(part)) for split, part in parts.items() if split == "train" or split in sizes}


def _count(key: str, size: float | int, rows: int) -> int:
    if isinstance(size, float) and size >= 1:
        raise DataError(f"{key}: should be a share between 0 and 1, or a whole number of rows. Found {size}.")
    # Rounded up, as `datasets` and scikit-learn do.
    return math.ceil(size * rows) if isinstance(size, float) else size


def _spread(classes: np.ndarray) -> np.ndarray:
    """Return a random order of rows in which the rows of each class are spread evenly, shape (rows,).

    The row with the random rank r among the n rows of its class has the place (r + 1/2) / n in the order, and equal
    places are in random order. For one class the order is a random permutation.
    """
    order = np.random.default_rng(_SEED).permutation(len(classes))
    shuffled = classes[order]
    by_class = np.argsort(shuffled, kind="stable")
    counts = np.bincount(shuffled)
    ranks = np.empty(len(classes), dtype=np.int64)
    ranks[by_class] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort((ranks + 0.5) / counts[shuffled], kind="stable")]
