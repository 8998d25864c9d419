"""Loading of a recipe's dataset, with its splits in canonical form."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import (
    LABEL_PREFIX,
    RENAMED_PREFIX,
    canonical_rows,
    progress_bars_from,
    reader_of,
    reading,
)
from mtl_nlp.data.cutting import (
    Slice,
    classes_in,
    column_to_stratify_by,
    describe_overlaps,
    flattened,
    set_aside,
    slices_of,
    take,
)
from mtl_nlp.data.label_reading import order_names
from mtl_nlp.data.missing import describe_missing, missing_input, rows_with_text, stream_with_text
from mtl_nlp.data.own_functions import apply_functions
from mtl_nlp.data.raw import expected_rows, flaw_of_split, load_raw
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.statistics_multitask import LabelStatistics
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.sections import SPLITS, DatasetRecipe

logger = logging.getLogger(__name__)

_SCHEMA_ROWS = 10_000
"""Number of first rows from which a stream's types are inferred, as many as `datasets` reads from CSV at once."""
_DRAW_SEED = 0


_Canonical = Callable[..., Any]
"""A function of a split's name in messages, its raw rows and `trains`, which returns the canonical rows."""


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in canonical form.

    Attributes:
        splits: split -> rows, see `canonical_rows`.
        class_names: task -> its names in order if a ClassLabel column, the task's `names` or 0/1 columns define them,
            else None. For a stream, names that were found in the rows instead of None.
        stream: the training split if it is streamed; `splits` then has no training split.
        num_rows: number of rows in the stream, given or counted.
        statistics: task -> the statistics of the labels in the stream, if all rows were read to count them.
        drawn_from: split -> the number of rows from which `max_rows` has drawn; only splits that have lost rows.
        notes: sentences about rows that are not used or are in several splits, and entries of `label_map` that rename
            nothing.
    """

    splits: dict[str, Dataset]
    class_names: dict[str, list[str] | None]
    stream: IterableDataset | None = None
    num_rows: int = 0
    statistics: dict[str, LabelStatistics] = field(default_factory=dict)
    drawn_from: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def can_train(self, task: str) -> bool:
        """Return whether any training row can have a label for the task."""
        return self.stream is not None or has_labels(self.splits["train"], task)


def load_splits(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    only: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LoadedDataset:
    """Load a dataset and bring its splits into canonical form.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.
        tasks: all tasks by name.
        only: the only split to load; by default all existing splits of `train`, `validation` and `test`.
        tokenizer: the model's tokenizer, see `canonical_rows`.

    Returns:
        The dataset, without any split if the split `only` does not exist.

    Raises:
        DataError: if a file or split is missing or cannot be read, there is no training split, a split is empty, or a
            row is invalid.
    """
    if recipe.streaming and only == "train":
        raise DataError(f"datasets.{name}.streaming: a streamed split cannot be evaluated. Leave out `streaming`.")
    logger.info("loading dataset %s", name)
    raw = load_raw(name, recipe)
    canonical = partial(_canonical, recipe=recipe, tasks=tasks, tokenizer=tokenizer, empty_cells=raw.is_csv)
    loaded = _load_stored(name, recipe, tasks, raw.splits, only, canonical)
    return _draw(replace(loaded, notes=[*raw.notes, *loaded.notes]), recipe.max_rows)


def _load_stored(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    stored: DatasetDict | IterableDatasetDict,
    only: str | None,
    canonical: _Canonical,
) -> LoadedDataset:
    """Apply the dataset's own functions to its stored splits, and bring the splits into canonical form."""
    if isinstance(stored, IterableDatasetDict):
        stored = IterableDatasetDict(_apply(name, recipe, stored, stored))
        return _load_streamed(name, recipe, tasks, stored, only, canonical)
    slices = slices_of(name, recipe, {split: len(rows) for split, rows in stored.items()})
    _check_splits(name, recipe, slices, stored, only)
    overlaps = describe_overlaps(name, slices)
    source = "train" if only in recipe.sizes else only
    slices = {split: parts for split, parts in slices.items() if source in {None, split}}
    if recipe.map is not None or recipe.filter is not None:
        used = dict.fromkeys(part.source for parts in slices.values() for part in parts)
        stored = DatasetDict({**stored, **_apply(name, recipe, stored, used)})
        # The slices are shares of the rows that are left.
        cut = slices_of(name, recipe, {split: len(rows) for split, rows in stored.items()})
        slices = {split: cut[split] for split in slices}
    loaded = _load_slices(name, recipe, tasks, stored, slices, canonical, is_whole=only is None)
    kept = {split: rows for split, rows in loaded.splits.items() if only in {None, split}}
    return replace(loaded, splits=kept, notes=[*loaded.notes, *overlaps])


def _apply(name: str, recipe: DatasetRecipe, stored: Mapping[str, Any], splits: Iterable[str]) -> dict[str, Any]:
    """Return some of the stored splits after the dataset's own functions."""
    return {split: apply_functions(name, split, recipe, stored[split]) for split in splits}


def _load_slices(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    stored: DatasetDict,
    slices: Mapping[str, list[Slice]],
    canonical: _Canonical,
    *,
    is_whole: bool,
) -> LoadedDataset:
    """Bring stored splits into canonical form, cut them, and set rows aside.

    The rows are checked before they are cut, so that messages name their positions in the file. Only among the rows of
    a whole dataset, an entry of `label_map` that renames nothing gets a note.
    """
    rows, masks, notes = {}, {}, []
    for source, label in _labels_of(slices, stored).items():
        trains = any(part.source == source for part in slices.get("train", ()))
        rows[source] = canonical(f"{name}/{label}", stored[source], trains=trains)
        masks[source], lost = rows_with_text(
            f"{name}/{label}", rows[source], recipe.inputs, refuses=recipe.on_missing_text == "error"
        )
        notes += lost
    splits = {split: take(rows, parts, masks) for split, parts in slices.items()}
    for split, taken in splits.items():
        if not len(taken):
            raise DataError(f"datasets.{name}.splits.{split}: no row has its inputs.")
    if recipe.sizes and "train" in splits:
        column = column_to_stratify_by(recipe, tasks)
        key = f"datasets.{name}.stratify_by_column"
        classes = None if column is None else classes_in(key, column, stored, slices["train"], masks)
        splits |= set_aside(name, splits["train"], recipe.sizes, classes)
    class_names = {
        task: reader_of(tasks[task], given, stored[source].features, recipe.label_map).known_names(
            stored[source].features
        )
        for source in rows
        for task, given in recipe.labels.items()
    }
    notes += _unused_names(name, recipe, tasks, stored, rows) if is_whole else []
    return LoadedDataset(splits, class_names, notes=notes)


def _labels_of(slices: Mapping[str, list[Slice]], stored: DatasetDict) -> dict[str, str]:
    """Return the name in messages of each stored split: the split that it is, or its own name if it is cut."""
    labels: dict[str, str] = {}
    for split, parts in slices.items():
        for part in parts:
            is_whole = len(parts) == 1 and part.stop - part.start == len(stored[part.source])
            labels[part.source] = split if is_whole and part.source not in labels else part.source
    return labels


def has_labels(rows: Dataset, task: str) -> bool:
    """Return whether any canonical row has a label for the task."""
    column = rows.data.column(LABEL_PREFIX + task)
    return column.null_count < len(column)


def _check_splits(
    name: str, recipe: DatasetRecipe, found: Container[str], stored: Iterable[str], only: str | None
) -> None:
    """Check that there is a training split, and no split beside the rows that are set aside for it."""
    own = recipe.splits.get("train", "train")
    if only is None and "train" not in found:
        raise DataError(f"datasets.{name}: no split {own!r} to train on. The dataset has {', '.join(stored)}.")
    for split in recipe.sizes:
        if split in found or "train" not in found:
            raise DataError(f"datasets.{name}.{split}_size: needs a train split and no {split} split. Leave it out.")


def _canonical(
    name: str,
    rows: Any,
    *,
    trains: bool,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase | None,
    empty_cells: bool,
) -> Any:
    # Only training rows need the column of weights, which files for evaluation often lack.
    has_weights = trains or recipe.weight in (rows.column_names or ())
    return canonical_rows(
        rows,
        name,
        inputs=recipe.inputs,
        labels=recipe.labels,
        tasks=tasks,
        weight=recipe.weight if has_weights else None,
        label_map=recipe.label_map,
        keeps_missing=True,
        tokenizer=tokenizer,
        empty_cells=empty_cells,
    )


def _unused_names(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    raw: Mapping[str, Dataset],
    canonical: Mapping[str, Dataset],
) -> list[str]:
    """Return a sentence per task whose `label_map` has entries that rename nothing in any split."""
    notes = []
    for task in recipe.label_map:
        met: set[str] = set()
        for rows in raw.values():
            reader = reader_of(tasks[task], recipe.labels[task], rows.features, recipe.label_map)
            reader.known_names(rows.features)
            met |= reader.met
        for rows in canonical.values():
            for found in rows[RENAMED_PREFIX + task]:
                met.update(found)
        if unmet := reader.unmet(met):
            shown = ", ".join(repr(key) for key in unmet[:5]) + (", …" if len(unmet) > 5 else "")
            notes.append(f"{name}: label_map.{task} names {shown}, which no row has")
    return notes


def _draw(loaded: LoadedDataset, max_rows: Mapping[str, int]) -> LoadedDataset:
    """Return a dataset whose splits have at most the given number of rows, drawn at random and in their own order.

    The rows were checked before, so that messages name their positions in the file. The seed is fixed, so that all runs
    of a comparison have the same rows.
    """
    larger = {split: len(rows) for split, rows in loaded.splits.items() if len(rows) > max_rows.get(split, len(rows))}
    drawn = {}
    for split, size in larger.items():
        chosen = np.random.default_rng(_DRAW_SEED).permutation(size)[: max_rows[split]]
        drawn[split] = flattened(loaded.splits[split].select(np.sort(chosen)))
    return replace(loaded, splits={**loaded.splits, **drawn}, drawn_from=larger)


def _load_streamed(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    stored: IterableDatasetDict,
    only: str | None,
    canonical: _Canonical,
) -> LoadedDataset:
    """Return a dataset with a streamed training split, whose other splits are read."""
    for split, own in recipe.splits.items():
        if own not in stored:
            raise DataError(f"datasets.{name}.splits.{split}: no split {own!r}. {did_you_mean(own, stored)}")
    names = {split: recipe.splits.get(split, split) for split in SPLITS}
    found = {split: stored[own] for split, own in names.items() if own in stored}
    _check_splits(name, recipe, found, stored, only)
    raw = DatasetDict(
        {
            split: _read_all(f"{name}/{split}", found[split], partial(flaw_of_split, recipe, names[split]))
            for split in found
            if split != "train" and only in {None, split}
        }
    )
    others = _load_slices(
        name,
        recipe,
        tasks,
        raw,
        {split: [Slice(split, 0, len(raw[split]))] for split in raw},
        canonical,
        is_whole=False,
    )
    return others if only is not None else _with_stream(name, recipe, tasks, found["train"], others, canonical)


def _with_stream(
    name: str,
    recipe: DatasetRecipe,
    tasks: Mapping[str, Task],
    stream: IterableDataset,
    others: LoadedDataset,
    canonical: _Canonical,
) -> LoadedDataset:
    """Return a dataset with a streamed training split; the stream is read once unless its number of rows is given."""
    flaw = partial(flaw_of_split, recipe, recipe.splits.get("train", "train"))
    if stream.features is None:  # for files without a schema, types are inferred from rows
        stream = stream.cast(_read_all(f"{name}/train", stream.take(_SCHEMA_ROWS), flaw).features)
    rows = canonical(f"{name}/train", stream, trains=True)
    with_names = {task: tasks[task] for task in recipe.labels if tasks[task].kind.has_label_space}
    class_names = {
        task: reader_of(tasks[task], recipe.labels[task], stream.features, recipe.label_map).known_names(
            stream.features
        )
        for task in with_names
    }
    num_rows, notes, found = recipe.num_rows, others.notes, dict[str, LabelStatistics]()
    if num_rows is None:
        with progress_bars_from(expected_rows(recipe)), reading(f"{name}/train", flaw):
            counted = _count_rows_and_labels(
                f"{name}/train", rows, {task: tasks[task] for task in recipe.labels}, recipe
            )
        found = counted.statistics
        class_names = {task: class_names[task] or order_names(found[task].names, tasks[task]) for task in with_names}
        num_rows, notes = counted.rows, [*notes, *counted.notes]
        if num_rows == 0:
            raise DataError(f"{name}/train: the split has no rows.")
    for task, names in class_names.items():
        if names is None:
            raise DataError(
                f"datasets.{name}.num_rows: the label names of task {task!r} are only known when all rows are read. "
                f"Leave `num_rows` out, so that all rows are read before training."
            )
    class_names |= dict.fromkeys(recipe.labels.keys() - with_names)
    refuses = recipe.on_missing_text == "error"
    stream = stream_with_text(f"{name}/train", rows, recipe.inputs, refuses=refuses)
    return LoadedDataset(others.splits, class_names, stream, num_rows, found, notes=notes)


def _read_all(name: str, rows: IterableDataset, flaw: Callable[[], DataError | None]) -> Dataset:
    """Read all rows of a stream into memory."""
    with reading(name, flaw):
        found = list(rows)
        if not found:
            raise DataError(f"{name}: the split has no rows.")
        return Dataset.from_list(found, features=rows.features)


@dataclass(frozen=True)
class _Count:
    """The rows of a stream with text, the statistics of each task's labels, and notes about the remaining rows."""

    rows: int
    statistics: dict[str, LabelStatistics]
    notes: list[str]


def _count_rows_and_labels(
    name: str, rows: IterableDataset, tasks: Mapping[str, Task], recipe: DatasetRecipe
) -> _Count:
    """Read and check all canonical rows of a stream once."""
    count, statistics, lacking = 0, {task: LabelStatistics() for task in tasks}, Counter[str]()
    refuses = recipe.on_missing_text == "error"
    for number, row in enumerate(datasets.utils.tqdm(rows, desc=f"Reading {name}", unit=" rows")):
        if (key := missing_input(name, number, row, recipe.inputs, refuses=refuses)) is not None:
            lacking[key] += 1
            continue
        count += 1
        for name_of_task, task in tasks.items():
            statistics[name_of_task].add(task.kind, [row[LABEL_PREFIX + name_of_task]])
    notes = [describe_missing(name, key, recipe.inputs[key], rows) for key, rows in lacking.items()]
    return _Count(count, statistics, notes)
