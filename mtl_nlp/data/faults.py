"""One-line messages about data that `datasets` cannot load: the file at fault, the reason and the remedy."""

from __future__ import annotations

import gzip
import inspect
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError

from mtl_nlp.data.files import PARQUET_BRANCH, no_rows_in
from mtl_nlp.data.json_files import flaw_in_json
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.recipe.sections import DatasetRecipe

LOADING_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, ImportError, EOFError, StopIteration),
    *(DatasetGenerationError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError),
)
"""The errors that `datasets`, and the libraries with which it reads files, raise for data that cannot be loaded."""

_SCRIPTS = "Dataset scripts are no longer supported"

_SHOWN = 3
"""The largest number of files that a message names."""


def explain(
    name: str,
    recipe: DatasetRecipe,
    error: BaseException,
    builder: str,
    files: Sequence[str],
    options: Mapping[str, Any],
) -> DataError:
    """Return the message for an error of `load_dataset`.

    Args:
        name: the dataset's name in the recipe.
        recipe: the dataset's section of the recipe.
        error: the error.
        builder: the builder of `datasets`, Hub id or folder that was loaded.
        files: the local files of the split; empty if they are unknown.
        options: the arguments of `load_dataset`.
    """
    cause = (error.__cause__ or error) if isinstance(error, DatasetGenerationError) else error
    if isinstance(cause, DataError):
        return cause
    known = _of_path(name, recipe, cause) or _of_option(name, recipe, cause)
    return known or flaw_of_files(builder, files, options) or _of_cause(name, recipe, error, cause, files)


def flaw_of_files(builder: str, files: Sequence[str], options: Mapping[str, Any]) -> DataError | None:
    """Return the message about the first flaw of some local files; None if no flaw is found.

    Args:
        builder: the builder of `datasets` that reads the files.
        files: the files.
        options: the arguments of `load_dataset`.
    """
    if builder == "json":
        return flaw_in_json(files, options)
    return _damaged_table(builder, files) if builder in {"parquet", "arrow"} else None


def _of_path(name: str, recipe: DatasetRecipe, cause: BaseException) -> DataError | None:
    """Return the message about a `path` that has a loading script or no data files."""
    is_folder = Path(recipe.path).is_dir()
    if _SCRIPTS in str(cause):
        remedy = f"Set `revision: {PARQUET_BRANCH}`, the branch in which the Hub keeps the rows as Parquet files."
        if is_folder:
            remedy = f"Name the data files themselves, such as `path: {Path(recipe.path) / '*.csv'}`."
        return DataError(
            f"datasets.{name}.path: {recipe.path} has a loading script, and `datasets` no longer runs such scripts. "
            f"{remedy}"
        )
    if isinstance(cause, EmptyDatasetError | DataFilesNotFoundError) and is_folder:
        return no_rows_in(name, Path(recipe.path))
    return None


def _of_option(name: str, recipe: DatasetRecipe, cause: BaseException) -> DataError | None:
    """Return the message about a key of the dataset that is not an argument."""
    for key in recipe.model_extra or {}:
        if f"'{key}'" in str(cause) and isinstance(cause, TypeError | ValueError):
            valid = {*DatasetRecipe.model_fields, *inspect.signature(load_dataset).parameters}
            return DataError(
                f"datasets.{name}.{key}: neither a key of a dataset nor an argument of load_dataset for "
                f"{recipe.path}. {did_you_mean(key, valid)}"
            )
    return None


def _damaged_table(builder: str, files: Iterable[str]) -> DataError | None:
    for path in files:
        try:
            if builder == "parquet":
                for _ in pq.ParquetFile(path).iter_batches():
                    pass
            else:
                _read_arrow(path)
        except (pa.ArrowException, OSError) as error:
            return DataError(
                f"{path}: the file is damaged or not a file of the format {builder}: {one_line(error).rstrip('.')}."
            )
    return None


def _read_arrow(path: str) -> None:
    """Read a file in Arrow's format of files or streams, as `datasets` does."""
    try:
        with pa.memory_map(path) as source:
            pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        with pa.memory_map(path) as source:
            pa.ipc.open_file(source).read_all()


def _of_cause(
    name: str, recipe: DatasetRecipe, error: BaseException, cause: BaseException, files: Sequence[str]
) -> DataError:
    is_read = isinstance(error, DatasetGenerationError)
    is_id = not recipe.reads_files and not Path(recipe.path).exists()
    hint = f". There is no file or folder {recipe.path} beside the recipe either" if is_id else ""
    if isinstance(cause, ImportError) and cause.name is not None:
        hint = f". Install the package: pip install {cause.name}"
    if isinstance(cause, UnicodeDecodeError):
        hint = ". Set `encoding`, such as `encoding: cp1252`"
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    shown = f" ({', '.join(files[:_SHOWN])}{more})" if files else ""
    if isinstance(cause, StopIteration):
        return DataError(f"datasets.{name}{shown}: cannot be read: a file is empty.")
    what = f"{type(cause).__name__}: {one_line(cause)}".rstrip(".")
    return DataError(f"datasets.{name}{shown}: cannot be {'read' if is_read else 'loaded'}: {what}{hint}.")
