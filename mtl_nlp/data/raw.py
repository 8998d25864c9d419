"""The splits of a recipe's dataset as they are stored, before their rows are checked."""

from __future__ import annotations

import copy
import glob
import inspect
import os
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from mtl_nlp.data.canonical import SLOW_ROWS, progress_bars_from
from mtl_nlp.data.formats import BYTES_PER_ROW, format_of, read_files
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
    _check_files_exist(name, recipe)
    try:
        loaded = _load(recipe)
    except StopIteration as error:
        raise DataError(f"datasets.{name}: cannot be read: a file is empty.") from error
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        raise DataError(f"datasets.{name}: cannot be read: {type(cause).__name__}: {one_line(cause)}") from error
    except DataError:
        raise
    except (DatasetNotFoundError, OSError, ValueError, TypeError) as error:
        raise _explain(name, recipe, error) from error
    if not isinstance(loaded, DatasetDict | IterableDatasetDict):
        raise DataError(f"datasets.{name}: expected all splits of a dataset. Leave out `split`.")
    return loaded


def expected_rows(recipe: DatasetRecipe) -> int:
    """Return a rough number of rows in a dataset's local files, or `SLOW_ROWS` for a dataset without local files."""
    patterns = [pattern for patterns in (recipe.data_files or {}).values() for pattern in patterns]
    if not recipe.reads_files or any("://" in pattern for pattern in patterns):
        return SLOW_ROWS
    return sum(os.path.getsize(path) for pattern in patterns for path in glob.glob(pattern)) // BYTES_PER_ROW


def _check_files_exist(name: str, recipe: DatasetRecipe) -> None:
    if not recipe.reads_files:
        return
    for split, patterns in (recipe.data_files or {}).items():
        for pattern in patterns:
            if "://" not in pattern and not glob.glob(pattern):
                raise DataError(f"datasets.{name}.data_files.{split}: no file {pattern}.")


def _load(recipe: DatasetRecipe) -> Any:
    """Load the splits with the reader of the format, or with `load_dataset`."""
    stored = format_of(recipe)
    if stored.read is not None:
        splits = {split: read_files(recipe, patterns) for split, patterns in (recipe.data_files or {}).items()}
        return IterableDatasetDict(splits) if recipe.streaming else DatasetDict(splits)
    # A copy, since `load_dataset` adds the user's token to `storage_options`.
    given = copy.deepcopy(recipe.model_extra or {})
    options = {**stored.options, **given, **({"streaming": True} if recipe.streaming else {})}
    with progress_bars_from(expected_rows(recipe)):
        return load_dataset(recipe.path, data_files=recipe.data_files, **options)


def _explain(name: str, recipe: DatasetRecipe, error: Exception) -> DataError:
    """Return a `DataError` for an error of `load_dataset`; the message names a recipe's key that is not an argument."""
    for key in recipe.model_extra or {}:
        if f"'{key}'" in str(error):
            valid = {*DatasetRecipe.model_fields, *inspect.signature(load_dataset).parameters}
            return DataError(
                f"datasets.{name}.{key}: neither a key of a dataset nor an argument of load_dataset for "
                f"{recipe.path}. {did_you_mean(key, valid)}"
            )
    return DataError(f"datasets.{name}: cannot be loaded: {type(error).__name__}: {one_line(error)}")
