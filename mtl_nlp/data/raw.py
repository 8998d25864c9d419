"""The splits of a recipe's dataset as they are stored, before their rows are checked."""

from __future__ import annotations

import codecs
import copy
import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDatasetDict, List, load_dataset

from mtl_nlp.data.canonical import SLOW_ROWS, progress_bars_from
from mtl_nlp.data.csv_files import CsvFindings, can_check, check_csv, keeps_texts, text_or_none, why_unchecked
from mtl_nlp.data.faults import LOADING_ERRORS, explain, flaw_of_files
from mtl_nlp.data.files import check_files_exist, files_of_folder, saved_files
from mtl_nlp.data.formats import BYTES_PER_ROW, FORMATS, Format, format_name, format_of, read_files
from mtl_nlp.data.json_files import check_lists
from mtl_nlp.data.opening import check_utf8, has_several_files
from mtl_nlp.data.remembered import remembered
from mtl_nlp.errors import DataError
from mtl_nlp.messages import conceal
from mtl_nlp.recipe.files import files_of, literal_start
from mtl_nlp.recipe.label_columns import columns_of
from mtl_nlp.recipe.sections import DatasetRecipe

_CHECKED_ROWS = 10_000
"""Number of rows of a file that are checked if the rows of a stream should not be read before training."""


@dataclass(frozen=True)
class RawDataset:
    """The splits of a dataset under the dataset's own names.

    Attributes:
        splits: split -> rows.
        notes: sentences about rows of files that may have been read in a different way than the user expects.
        is_csv: whether the rows come from CSV files, whose empty cells may be texts or missing values.
    """

    splits: DatasetDict | IterableDatasetDict
    notes: list[str] = field(default_factory=list)
    is_csv: bool = False


def load_raw(name: str, recipe: DatasetRecipe) -> RawDataset:
    """Load all splits of a dataset under the dataset's own names.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.

    Raises:
        DataError: if a file or dataset is missing or cannot be read.
    """
    check_files_exist(name, recipe)
    if format_of(recipe).read is not None:
        return RawDataset(_read_columns(name, recipe), _notes_on_splits(name, recipe))
    _check_encoding(name, recipe)
    source = _source_of(name, recipe)
    # A copy, since `load_dataset` adds the user's token to `storage_options`.
    given = copy.deepcopy(recipe.model_extra or {})
    if "split" in given:
        raise DataError(f"datasets.{name}: expected all splits of a dataset. Leave out `split`.")
    options = {**source.options, **given, **({"streaming": True} if recipe.streaming else {})}
    findings = _checked(name, recipe, source, options)
    findings.notes += _notes_on_splits(name, recipe)
    options |= _converters(recipe, source, findings, options)
    with progress_bars_from(expected_rows(recipe)):
        loaded = _load(name, recipe, source, options)
    return RawDataset(_flattened(name, recipe, loaded), findings.notes, is_csv="na_values" in source.options)


def _notes_on_splits(name: str, recipe: DatasetRecipe) -> list[str]:
    """Return a sentence about files that a single glob names, and whose own names say their splits."""
    if isinstance(recipe.data_files, dict) or len(recipe.files) < 2 or Path(recipe.path).is_dir():
        return []
    shown = "; ".join(
        f"{split} {', '.join(Path(file).name for file in files[:3])}{', …' if len(files) > 3 else ''}"
        for split, files in recipe.files.items()
    )
    return [f"{name}: the names of the files say their splits: {shown}. For other splits name `data_files` by split"]


def _read_columns(name: str, recipe: DatasetRecipe) -> DatasetDict | IterableDatasetDict:
    """Read the splits of a dataset of column files."""
    try:
        splits = {split: read_files(recipe, patterns) for split, patterns in recipe.files.items()}
    except DataError:
        raise
    except LOADING_ERRORS as error:
        raise explain(name, recipe, error, "conll", [], {}) from error
    return IterableDatasetDict(splits) if recipe.streaming else DatasetDict(splits)


def flaw_of_split(recipe: DatasetRecipe, split: str) -> DataError | None:
    """Return an error about the first flaw of a split's local files, or None if no flaw is found.

    Args:
        recipe: the dataset's section of the recipe.
        split: the dataset's own name of the split.
    """
    if not recipe.reads_files or not _are_local(recipe.files.get(split, ["://"])):
        return None
    files = [path for pattern in recipe.files[split] for path in files_of(pattern)]
    return flaw_of_files(_builder_of(recipe), files, recipe.model_extra or {})


def expected_rows(recipe: DatasetRecipe) -> int:
    """Return a rough number of rows in a dataset's local files, or `SLOW_ROWS` for a dataset without local files."""
    patterns = [pattern for patterns in recipe.files.values() for pattern in patterns]
    if not recipe.reads_files or not _are_local(patterns):
        return SLOW_ROWS
    return sum(os.path.getsize(path) for pattern in patterns for path in files_of(pattern)) // BYTES_PER_ROW


def _check_encoding(name: str, recipe: DatasetRecipe) -> None:
    encoding = (recipe.model_extra or {}).get("encoding")
    try:
        codecs.lookup(encoding or "utf-8")
    except (LookupError, TypeError) as error:
        raise DataError(
            f"datasets.{name}.encoding: no such encoding {encoding!r:.40}. Valid: the encodings of Python, such as "
            f"utf-8, cp1252 or utf-16."
        ) from error


@dataclass(frozen=True)
class _Source:
    """The arguments of `load_dataset` that name the data.

    Attributes:
        path: a builder of `datasets`, Hub id or folder.
        data_files: the files, if they are named.
        builder: the builder that reads the files, or the Hub id.
        local: split -> its files on this machine, as far as they are known.
        options: options of the format.
    """

    path: str
    data_files: Any
    builder: str
    local: Mapping[str, Sequence[str]]
    options: Mapping[str, Any]


def _source_of(name: str, recipe: DatasetRecipe) -> _Source:
    """Return the arguments of `load_dataset` for a dataset that is not in column files."""
    options = format_of(recipe).options
    if recipe.reads_files:
        return _of_patterns(_builder_of(recipe), recipe.files, options)
    folder = Path(recipe.path)
    if recipe.data_files is not None or not folder.is_dir():
        return _Source(recipe.path, recipe.data_files, recipe.path, {}, options)
    # The rows of `save_to_disk` are read like other files: changes are noticed, and caches are not written into the
    # user's folder, as they are after `load_from_disk`.
    saved = saved_files(name, folder)
    if saved is not None:
        return _of_patterns("arrow", saved, options)
    format_of_files, files = files_of_folder(folder)
    known = FORMATS.get(format_of_files, Format())
    if glob.has_magic(recipe.path) and files:
        return _of_patterns(known.builder or format_of_files, files, known.options)
    # `load_dataset` itself reads `.tsv` files with tabs.
    return _Source(recipe.path, None, known.builder or format_of_files, files, known.options)


def _builder_of(recipe: DatasetRecipe) -> str:
    return format_of(recipe).builder or str(format_name(recipe))


def _of_patterns(builder: str, patterns: Mapping[str, Sequence[str]], options: Mapping[str, Any]) -> _Source:
    """Return a source of files by split, in whose names brackets stand for themselves."""
    data_files = {
        split: [each if "://" in each else literal_start(each) for each in of_split]
        for split, of_split in patterns.items()
    }
    local = {
        split: [path for each in of_split for path in files_of(each)] if _are_local(of_split) else []
        for split, of_split in patterns.items()
    }
    return _Source(builder, data_files, builder, local, options)


def _are_local(patterns: Iterable[str]) -> bool:
    return not any("://" in pattern for pattern in patterns)


def _checked(name: str, recipe: DatasetRecipe, source: _Source, options: Mapping[str, Any]) -> CsvFindings:
    """Check the files that `datasets` would misread, or whose flaws it would not name."""
    findings = CsvFindings()
    for split, files in source.local.items():
        if source.builder == "csv" and files and not can_check(options):
            reason = why_unchecked(options)
            findings.notes.append(f"{name}/{split}: the CSV files are not checked, because of `{reason}`")
        elif source.builder == "csv":
            findings.add(_checked_csv(f"{name}/{split}", recipe, files, options))
        elif source.builder == "json" and recipe.num_rows is None:
            if not _has_encoding(options):
                remembered(files, "UTF-8", partial(_check_utf8, files))
            reading = {key: options.get(key) for key in ("encoding", "encoding_errors", "field")}
            remembered(files, ["lists", reading], partial(check_lists, files, reading))
    return findings


def _checked_csv(name: str, recipe: DatasetRecipe, files: Sequence[str], options: Mapping[str, Any]) -> CsvFindings:
    """Return the findings of the CSV files of a split, which are read only if they have changed."""
    labels = columns_of(recipe.labels)
    arguments: dict[str, Any] = {
        "wanted": [] if recipe.map is not None else [*recipe.inputs.values(), *labels],
        "labels": labels,
        "most_rows": None if recipe.num_rows is None else _CHECKED_ROWS,
    }

    def check() -> dict[str, Any]:
        found = check_csv(name, files, options, **arguments)
        return {"notes": found.notes, "classes": {column: sorted(texts) for column, texts in found.classes.items()}}

    found = remembered(files, [name, dict(options), arguments], check)
    return CsvFindings(
        [conceal(note) for note in found["notes"]],
        {column: set(texts) for column, texts in found["classes"].items()},
    )


def _check_utf8(files: Iterable[str]) -> None:
    for path in files:
        if not has_several_files(path):
            check_utf8(path)


def _has_encoding(options: Mapping[str, Any]) -> bool:
    """Return whether a dataset sets its encoding, or how bytes outside of the encoding are read.

    `datasets` reads an object per line of UTF-8 without regard to `encoding_errors`.
    """
    ignores_errors = options.get("field") is not None and options.get("encoding_errors") not in {None, "strict"}
    return bool(options.get("encoding")) or ignores_errors


def _converters(
    recipe: DatasetRecipe, source: _Source, findings: CsvFindings, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the option with which pandas reads the columns of texts, and of some labels, as texts."""
    if source.builder != "csv" or not keeps_texts(options):
        return {}
    inputs = [column for key, column in recipe.inputs.items() if key != "tokens"]
    return {"converters": dict.fromkeys([*inputs, *findings.text_columns()], text_or_none)}


def _load(name: str, recipe: DatasetRecipe, source: _Source, options: Mapping[str, Any]) -> Any:
    """Load the splits with `load_dataset`.

    Named files are loaded split by split, so that a column may have a different type in each split.
    """
    if source.path != source.builder or not source.local:
        every = [path for files in source.local.values() for path in files]
        return _load_part(name, recipe, source, every, {"data_files": source.data_files, **options})
    splits = {
        split: _load_part(
            name, recipe, source, source.local[split], {"data_files": {split: files}, "split": split, **options}
        )
        for split, files in source.data_files.items()
    }
    return IterableDatasetDict(splits) if recipe.streaming else DatasetDict(splits)


def _load_part(
    name: str, recipe: DatasetRecipe, source: _Source, files: Sequence[str], arguments: Mapping[str, Any]
) -> Any:
    """Load some files, and explain errors."""
    try:
        return load_dataset(source.path, **arguments)
    except DataError:
        raise
    except LOADING_ERRORS as error:
        raise explain(name, recipe, error, source.builder, files, arguments) from error


def _flattened(name: str, recipe: DatasetRecipe, splits: Any) -> Any:
    """Return the splits with the columns inside of objects, such as `question.text`, that the recipe names.

    Raises:
        DataError: if a column of the recipe is inside of a list of objects.
    """
    wanted = [*recipe.inputs.values(), *columns_of(recipe.labels)] if recipe.map is None else []
    flat = {}
    for split, rows in splits.items():
        features = rows.features or {}
        for column in (each for each in wanted if each not in features):
            _check_inside(f"datasets.{name}", column, features)
        is_nested = any(column not in features and column.partition(".")[0] in features for column in wanted)
        flat[split] = rows.flatten() if is_nested and isinstance(rows, Dataset) else rows
    return type(splits)(flat)


def _check_inside(key: str, column: str, features: Mapping[str, Any]) -> None:
    """Raise an error if a column that is missing is inside of a different column."""
    for outer, feature in features.items():
        if isinstance(feature, dict) and column in feature:
            raise DataError(f"{key}: no column {column!r}. Did you mean '{outer}.{column}', inside of {outer!r}?")
        inner = feature.feature if isinstance(feature, List) else None
        if isinstance(inner, dict) and column in inner:
            raise DataError(
                f"{key}: no column {column!r}. The rows are in the list {outer!r} of an object. Set `field: {outer}`."
            )
