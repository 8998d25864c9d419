"""The files of a dataset on this machine: globs, folders of `save_to_disk`, and messages about missing files."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets.data_files import get_data_patterns

from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.recipe.files import ENDINGS, columns_in, ending_of, files_of
from mtl_nlp.recipe.sections import DatasetRecipe

_BUILDERS = {"csv", "tsv", "json", "parquet", "arrow"}
"""The formats that `load_dataset` reads in a folder as this package does."""

PARQUET_BRANCH = "refs/convert/parquet"
"""The branch in which the Hub keeps the rows of a dataset as Parquet files."""

_SHOWN = 12
"""Number of files that a message lists."""

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
"""The files that `save_to_disk` writes beside the rows."""


def check_files_exist(name: str, recipe: DatasetRecipe) -> None:
    """Check that each file, glob and folder of a dataset is there.

    Args:
        name: the dataset's name in the recipe, for messages.
        recipe: the dataset's section of the recipe.

    Raises:
        DataError: if a file is missing. The message names the nearest file, or all files of the folder.
    """
    for split, patterns in recipe.files.items() if recipe.reads_files else ():
        key = f"data_files.{split}" if isinstance(recipe.data_files, dict) else "data_files"
        for pattern in patterns:
            if "://" not in pattern and not files_of(pattern):
                raise _no_file(f"datasets.{name}.{'path' if recipe.data_files is None else key}", pattern)
    if not recipe.reads_files and Path(recipe.path).is_absolute() and not Path(recipe.path).exists():
        raise _no_file(f"datasets.{name}.path", recipe.path)


def check_no_script(name: str, path: str) -> None:
    """Check that a path is not a loading script, which is code that older versions of `datasets` ran.

    Args:
        name: the dataset's name in the recipe, for messages.
        path: the path of the dataset.

    Raises:
        DataError: if the path ends in `.py`.
    """
    if path.endswith(".py"):
        raise DataError(
            f"datasets.{name}.path: {path} is a loading script, and `datasets` no longer runs such scripts. Name the "
            f"data files themselves, or the dataset's Hub id with `revision: {PARQUET_BRANCH}`."
        )


def _no_file(key: str, pattern: str) -> DataError:
    path = Path(pattern)
    if path.is_dir():
        return DataError(f"{key}: {pattern} is a folder. Name its files, such as {path / '*.jsonl'}. {_listed(path)}")
    folder = next(start for start in path.parents if start.is_dir())
    missing = path.relative_to(folder).parts[0]
    found = _names_in(folder)
    hint = did_you_mean(missing, found) if found and not glob.has_magic(missing) else _listed(folder)
    return DataError(f"{key}: no file {pattern}. {hint}")


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # a folder that this user may not list
        return []


def _listed(folder: Path) -> str:
    names = _names_in(folder)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"Found {', '.join(names[:_SHOWN])}{more}." if names else "The folder is empty."


def no_rows_in(name: str, folder: Path) -> DataError:
    """Return an error about a folder in which `load_dataset` finds no files of a known format.

    Args:
        name: the dataset's name in the recipe.
        folder: the folder.
    """
    remedy = f"Name the files, such as `path: {folder / '*.csv'}`"
    if columns_in(str(folder), has_columns=True) is not None:
        remedy = "For files of columns give the names of the columns in their order, such as `columns: [tokens, ner]`"
    return DataError(f"datasets.{name}.path: {folder} has no files of a known format. {_listed(folder)} {remedy}.")


def files_of_folder(folder: Path) -> tuple[str, dict[str, list[str]]]:
    """Return the format of the data files in a folder, and split -> its files, as `load_dataset` finds them.

    The format is that of the most frequent ending, and empty for an ending that `load_dataset` has no builder for.
    There are no files if a `README.md` names the files of several configurations.

    Args:
        folder: the folder.
    """
    base, card = glob.escape(str(folder)), folder / "README.md"
    endings = Counter(ending_of(path) for path in _matches(base, ["**"]) if not path.endswith(".md"))
    found = ENDINGS.get(endings.most_common(1)[0][0] if endings else "", "")
    if found not in _BUILDERS:
        return "", {}
    if card.is_file() and "configs:" in card.read_text(encoding="utf-8", errors="replace"):
        return found, {}
    try:
        patterns = get_data_patterns(base)
    except FileNotFoundError:
        return found, {}
    splits = {str(split): _matches(base, of_split) for split, of_split in patterns.items()}
    of_format = {
        split: [file for file in files if ENDINGS.get(ending_of(file)) == found] for split, files in splits.items()
    }
    return found, {split: files for split, files in of_format.items() if files}


def _matches(base: str, patterns: Iterable[str]) -> list[str]:
    found = (path for pattern in patterns for path in glob.glob(f"{base}/{pattern}", recursive=True))
    return sorted(set(filter(os.path.isfile, found)))


def saved_files(name: str, folder: Path) -> dict[str, list[str]] | None:
    """Return the files of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Args:
        name: the dataset's name in the recipe, for messages.
        folder: the folder.

    Returns:
        Split -> its Arrow files; a single `Dataset` is the split `train`. None for any other folder.

    Raises:
        DataError: if a file of the folder is missing or damaged.
    """
    if (folder / _STATE).is_file():
        return {"train": _files_of_state(name, folder)}
    if (folder / _SPLITS).is_file():
        splits = _read(name, folder / _SPLITS, "splits")
        return {str(split): _files_of_state(name, folder / str(split)) for split in splits}
    if any(folder.glob(f"*/{_STATE}")):
        raise _damaged(name, folder / _SPLITS, "is missing")
    if (folder / _INFO).is_file() and any(folder.glob("*.arrow")):
        raise _damaged(name, folder / _STATE, "is missing")
    return None


def _files_of_state(name: str, folder: Path) -> list[str]:
    found = _read(name, folder / _STATE, "_data_files")
    files = [folder / str(entry.get("filename")) for entry in found if isinstance(entry, dict)]
    for file in files:
        if not file.is_file():
            raise _damaged(name, file, "is missing")
    if not files:
        raise _damaged(name, folder / _STATE, "names no files")
    return list(map(str, files))


def _read(name: str, path: Path, key: str) -> list[Any]:
    """Return the list under a key of a file that `save_to_disk` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(name, path, "is missing") from error
    except (OSError, ValueError) as error:
        raise _damaged(name, path, f"cannot be read: {one_line(error)}") from error
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise _damaged(name, path, f"has no list {key!r}")
    return found


def _damaged(name: str, path: Path, flaw: str) -> DataError:
    return DataError(
        f"datasets.{name}.path: `save_to_disk` wrote the folder {path.parent}, but {path.name} {flaw}. Save the "
        f"dataset again."
    )
