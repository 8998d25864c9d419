"""The paths of a recipe's data: files and globs, folders, formats and Hub ids. Imports no torch."""

from __future__ import annotations

import glob
from pathlib import Path, PurePath

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".conllu": "conllu",
    ".conll": "conll",
    ".txt": "conll",
}
"""The ending of a file -> the name of its format, as in `path: csv`. A `.txt` file is a file of columns."""

_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
"""Endings that follow the ending of the format, such as `.csv.gz`."""

_STARTS = ("/", "./", "../", "~")
"""The starts of a path that is neither a Hub id nor the name of a format."""


def ending_of(path: str) -> str:
    """Return the ending of a file, such as `.csv`, in lower case and without the ending of a compressed file."""
    name = PurePath(path)
    return (PurePath(name.stem) if name.suffix.lower() in _COMPRESSED else name).suffix.lower()


def is_files(path: str) -> bool:
    """Return whether the `path` of a dataset stands for files: a file, a glob or a URL, and no folder or Hub id.

    A file that does not exist is recognised by its ending. A folder may have the name of a file, such as the folders
    that Spark writes, and a folder or file may have the characters of a glob.
    """
    if "://" in path:
        return ending_of(path) in ENDINGS
    if Path(path).is_dir():
        return False
    return ending_of(path) in ENDINGS or glob.has_magic(path) or Path(path).is_file()


def is_local(path: str, folder: Path) -> bool:
    """Return whether the `path` of a dataset is a file, glob or folder on this machine.

    Args:
        path: the path as it stands in a recipe.
        folder: the folder of the recipe.
    """
    if "://" in path:
        return False
    return path.startswith(_STARTS) or (folder / path).is_dir() or is_files(str(folder / path))


def names_in(split: str) -> set[str]:
    """Return the names of splits in a slice as `datasets` writes it, such as `train` in `train[:80%]`."""
    return {split, *(part.partition("[")[0].strip() for part in split.split("+"))}
