"""The formats of data files: the table `FORMATS`, and the conversion of column files to datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, Features, IterableDataset, List, Value

from mtl_nlp.data.canonical import code_fingerprint, progress_bars_from
from mtl_nlp.data.conll import CONLLU_COLUMNS, read_conll, read_conllu
from mtl_nlp.data.files import check_files_exist, check_no_script
from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.files import ENDINGS, ending_of, files_of
from mtl_nlp.recipe.label_columns import columns_of
from mtl_nlp.recipe.sections import DatasetRecipe

BYTES_PER_ROW = 500
"""Rough size of a row in a file, for estimates of the number of rows."""


@dataclass(frozen=True)
class Format:
    """The properties of a file format.

    Attributes:
        read: a function that reads a file, sentence by sentence: `read(path)`, or `read(path, columns)` if the recipe
            names the columns. Each sentence is a dict with a list of strings per column, and a string per comment. None
            if the format is a builder of `datasets`.
        checks_cells: whether `read` also takes `filled`, the columns in which an empty cell is an error.
        columns: the names of the columns; None if the recipe names them, or the format is a builder of `datasets`.
        builder: the name of the builder of `datasets`, if it differs from the name of the format.
        options: arguments of `datasets.load_dataset` that a recipe may override.
    """

    read: Callable[..., Iterator[dict[str, Any]]] | None = None
    checks_cells: bool = False
    columns: tuple[str, ...] | None = None
    builder: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_columns(self) -> bool:
        """Whether the recipe names the columns."""
        return self.read is not None and self.columns is None


# By default pandas reads texts and labels such as `NA`, `None` and `nan` as missing values.
_CSV = {"keep_default_na": False, "na_values": [""]}

FORMATS = {
    "conll": Format(read_conll, checks_cells=True),
    "conllu": Format(read_conllu, checks_cells=True, columns=CONLLU_COLUMNS),
    "csv": Format(options=_CSV),
    "tsv": Format(builder="csv", options={**_CSV, "sep": "\t"}),
}
"""The formats by the name that a recipe gives as `path`. Any other name is a builder of `datasets` without options.

`mtl_nlp.recipe.files.ENDINGS` has the endings of the files.
"""


def format_name(dataset: DatasetRecipe) -> str | None:
    """Return the name of the format of a dataset's files, a Hub id, or a folder; None for files of unknown formats."""
    if dataset.data_files is not None or not dataset.reads_files:
        return dataset.path
    named = [] if Path(dataset.path).is_dir() else [dataset.path]
    patterns = named or [pattern for patterns in dataset.files.values() for pattern in patterns]
    files = [file for each in patterns for file in ([each] if ending_of(each) in ENDINGS else files_of(each))]
    names = {ENDINGS.get(ending_of(file)) for file in files}
    return names.pop() if len(names) == 1 else None


def format_of(dataset: DatasetRecipe) -> Format:
    """Return the format of a dataset's files, or a format without properties for a Hub id, folder or builder."""
    return FORMATS.get(format_name(dataset) or "", Format())


def check_format(name: str, dataset: DatasetRecipe) -> None:
    """Check that a dataset's section of a recipe has the keys that its format needs, and no unknown key.

    Args:
        name: the dataset's name in the recipe.
        dataset: the dataset's section of the recipe.

    Raises:
        DataError: if a file is missing.
        RecipeError: if the format of a file is unknown, or a key is missing, unknown, or belongs to a different format.
    """
    if format_name(dataset) is None:
        check_files_exist(name, dataset)
        check_no_script(name, dataset.path)
        raise RecipeError(
            f"datasets.{name}.path: the format of {dataset.path} is unknown. Files of one format should end in "
            f"{', '.join(ENDINGS)}. For any other ending, write the format as `path`, and the files as `data_files`."
        )
    if dataset.data_files is not None and ending_of(dataset.path) in ENDINGS and not Path(dataset.path).is_dir():
        raise RecipeError(
            f"datasets.{name}: `path` is a file, so `data_files` has no place. Move the file to `data_files`, and "
            f"write `path: {ENDINGS[ending_of(dataset.path)]}`."
        )
    found = format_of(dataset)
    if found.read is not None:
        for key in dataset.model_extra or {}:
            raise RecipeError(f"datasets.{name}: unknown key {key!r}. {did_you_mean(key, type(dataset).model_fields)}")
        if not dataset.reads_files:
            raise RecipeError(f"datasets.{name}: `path: {dataset.path}` needs `data_files`")
    if found.needs_columns != (dataset.columns is not None):
        needing = " or ".join(f"`path: {path}`" for path, each in FORMATS.items() if each.needs_columns)
        raise RecipeError(
            f"datasets.{name}: `columns` is needed for {needing} and for files that end in .conll or .txt, and not "
            f"allowed for any other path. It names the columns of the file in their order, such as [tokens, ner]"
        )


def read_files(dataset: DatasetRecipe, patterns: Sequence[str]) -> Dataset | IterableDataset:
    """Read the files of one split with the reader of their format.

    Args:
        dataset: the dataset's section of a recipe.
        patterns: paths or globs of the split's files.

    Returns:
        The columns that the recipe uses, as a dataset that is cached on disk until a file changes, or as a stream with
        one shard per file.
    """
    files = sorted(path for pattern in patterns for path in files_of(pattern))
    word_columns = dataset.columns or format_of(dataset).columns or ()
    of_labels = columns_of(dataset.labels)
    wanted = list(dict.fromkeys([*dataset.inputs.values(), *of_labels]))
    features = {column: List(Value("string")) if column in word_columns else Value("string") for column in wanted}
    sources = [(file, os.path.getsize(file), Path(file).stat().st_mtime_ns) for file in files]
    # The arguments are the cache's key, since `from_generator` does not notice a changed file or reader. Sequences are
    # tuples, since `from_generator` treats lists as shards.
    arguments = {
        "sources": sources if dataset.streaming else tuple(sources),
        "path": format_name(dataset),
        "columns": None if dataset.columns is None else tuple(dataset.columns),
        "wanted": tuple(wanted),
        "filled": tuple(column for column in of_labels if column in word_columns),
        "is_stream": dataset.streaming,
        "code": code_fingerprint(),
    }
    if dataset.streaming:
        return IterableDataset.from_generator(_rows_of_files, features=Features(features), gen_kwargs=arguments)
    with progress_bars_from(sum(size for _, size, _ in sources) // BYTES_PER_ROW):
        return Dataset.from_generator(_rows_of_files, features=Features(features), gen_kwargs=arguments)


def _rows_of_files(
    sources: Sequence[tuple],
    path: str,
    columns: Sequence[str] | None,
    wanted: Sequence[str],
    filled: Sequence[str],
    is_stream: bool,
    code: str,
) -> Iterator[dict[str, Any]]:
    """Yield the wanted columns of every sentence.

    A sentence may lack a wanted comment, but at least one sentence per file must have it. A stream reads its files in
    several calls, so an empty call does not mean an empty split.
    """
    read = cast("Callable[..., Iterator[dict[str, Any]]]", FORMATS[path].read)
    arguments = () if columns is None else (columns,)
    options = {"filled": filled} if FORMATS[path].checks_cells else {}
    count = 0
    for file, *_ in sources:
        seen: set[str] = set()
        for row in read(file, *arguments, **options):
            count += 1
            seen.update(row)
            yield {column: row.get(column) for column in wanted}
        for column in wanted:
            if seen and column not in seen:
                raise DataError(f"{file}: no column or comment {column!r}. {did_you_mean(column, seen)}")
    if not count and not is_stream:
        raise DataError(
            f"{', '.join(file for file, *_ in sources)}: the files have no sentences, so the split has no rows."
        )
