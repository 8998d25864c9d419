"""The splits of a recipe's dataset as they are stored, before their rows are checked."""

from __future__ import annotations

import copy
import inspect
import json
import os
from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

from mtl_nlp.data.canonical import SLOW_ROWS, progress_bars_from
from mtl_nlp.data.files import check_files_exist, files_of, literal_start, no_rows_in, saved_files
from mtl_nlp.data.formats import BYTES_PER_ROW, format_name, format_of, options_of, read_files
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.recipe.sections import DatasetRecipe


def load_raw(name: str, recipe: DatasetRecipe) -> DatasetDict | IterableDatasetDict:
    """Load all splits of a dataset under the dataset's own names.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.

    Raises:
        DataError: if a file or dataset is missing or cannot be read.
    """
    check_files_exist(name, recipe)
    try:
        loaded = _load(name, recipe)
    except StopIteration as error:
        raise DataError(f"datasets.{name}: cannot be read: a file is empty.") from error
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        remedy = " Set `encoding`, such as `encoding: cp1252`." if isinstance(cause, UnicodeDecodeError) else ""
        raise DataError(
            f"datasets.{name}: cannot be read: {type(cause).__name__}: {one_line(cause)}{remedy}"
        ) from error
    except DataError:
        raise
    except (DatasetNotFoundError, OSError, ValueError, TypeError) as error:
        raise _explain(name, recipe, error) from error
    if not isinstance(loaded, DatasetDict | IterableDatasetDict):
        raise DataError(f"datasets.{name}: expected all splits of a dataset. Leave out `split`.")
    _check_separator(name, recipe, loaded)
    return loaded


def expected_rows(recipe: DatasetRecipe) -> int:
    """Return a rough number of rows in a dataset's local files, or `SLOW_ROWS` for a dataset without local files."""
    patterns = [pattern for patterns in recipe.files.values() for pattern in patterns]
    if not recipe.reads_files or any("://" in pattern for pattern in patterns):
        return SLOW_ROWS
    return sum(os.path.getsize(path) for pattern in patterns for path in files_of(pattern)) // BYTES_PER_ROW


def _load(name: str, recipe: DatasetRecipe) -> Any:
    """Load the splits with the reader of the format, or with `load_dataset`."""
    stored = format_of(recipe)
    if stored.read is not None:
        splits = {split: read_files(recipe, patterns) for split, patterns in recipe.files.items()}
        return IterableDatasetDict(splits) if recipe.streaming else DatasetDict(splits)
    source, files = _source_of(name, recipe)
    # A copy, since `load_dataset` adds the user's token to `storage_options`.
    given = copy.deepcopy(recipe.model_extra or {})
    options = {**options_of(recipe), **given, **({"streaming": True} if recipe.streaming else {})}
    with progress_bars_from(expected_rows(recipe)):
        return load_dataset(source, data_files=files, **options)


def _source_of(name: str, recipe: DatasetRecipe) -> tuple[str, Any]:
    """Return the builder, Hub id or folder that `load_dataset` loads, and its `data_files`."""
    source, files = recipe.path, recipe.files
    if recipe.reads_files:
        source = format_of(recipe).builder or str(format_name(recipe))
    elif recipe.data_files is not None or not Path(recipe.path).is_dir():
        return source, recipe.data_files
    else:
        # The rows of `save_to_disk` are read like other files: changes are noticed, and caches are not written into the
        # user's folder, as they are after `load_from_disk`.
        saved = saved_files(name, Path(recipe.path))
        if saved is None:
            return source, None
        source, files = "arrow", saved
    return source, {
        split: [each if "://" in each else literal_start(each) for each in patterns]
        for split, patterns in files.items()
    }


def _explain(name: str, recipe: DatasetRecipe, error: Exception) -> DataError:
    """Return a `DataError` for an error of `load_dataset`; the message names a recipe's key that is not an argument."""
    for key in recipe.model_extra or {}:
        if f"'{key}'" in str(error):
            valid = {*DatasetRecipe.model_fields, *inspect.signature(load_dataset).parameters}
            return DataError(
                f"datasets.{name}.{key}: neither a key of a dataset nor an argument of load_dataset for "
                f"{recipe.path}. {did_you_mean(key, valid)}"
            )
    if isinstance(error, EmptyDatasetError | DataFilesNotFoundError) and Path(recipe.path).is_dir():
        return no_rows_in(name, Path(recipe.path))
    is_id = not recipe.reads_files and not Path(recipe.path).exists()
    hint = f". There is no file or folder {recipe.path} beside the recipe either" if is_id else ""
    return DataError(f"datasets.{name}: cannot be loaded: {type(error).__name__}: {one_line(error)}{hint}")


def _check_separator(name: str, recipe: DatasetRecipe, loaded: DatasetDict | IterableDatasetDict) -> None:
    """Check that a CSV file with a different separator is not read as one column."""
    wanted = {*recipe.inputs.values()}
    for rows in loaded.values() if "csv" in {format_name(recipe), format_of(recipe).builder} else ():
        columns = rows.column_names or []
        if len(columns) == 1 and not wanted <= set(columns):
            for separator in (each for each in "\t;,|" if each in columns[0]):
                raise DataError(
                    f"datasets.{name}: the file has one column, {columns[0]!r:.80}. Set `sep: {json.dumps(separator)}`."
                )
