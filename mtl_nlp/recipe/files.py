"""The paths of a recipe's data: files and globs, folders, formats and Hub ids. Imports no torch."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
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

SPLIT_WORDS = {
    "train": "train training trn",
    "validation": "validation valid val dev development testa",
    "test": "test tst testb eval evaluation",
}
"""The splits, and the words in the names of files and folders that say a split."""

SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words.split()}

_WORDS = re.compile(r"[a-z]+", re.IGNORECASE)

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


def literal_start(pattern: str) -> str:
    """Return a glob in which the characters of existing folders and files stand for themselves.

    A folder such as `data [v2]` would otherwise be read as a glob that does not match the folder.
    """
    path = Path(pattern)
    known = next((start for start in (path, *path.parents) if start.exists()), Path(path.anchor))
    rest = path.relative_to(known)
    return str(Path(glob.escape(str(known))) / rest)


def files_of(pattern: str) -> list[str]:
    """Return the sorted files that a path or glob stands for."""
    return sorted(filter(os.path.isfile, glob.glob(literal_start(pattern), recursive=True)))


def word_of_split(name: str) -> re.Match[str] | None:
    """Return the last word in the name of a file that says a split, such as `dev` in `en-dev.conllu`."""
    found = [word for word in _WORDS.finditer(name) if word[0].lower() in SPLIT_OF]
    return found[-1] if found else None


def files_by_split(pattern: str) -> dict[str, list[str]]:
    """Return split -> the files of a path or glob, where the names of files or their folders say several splits.

    The training rows come from the files whose names say no other split. If all files belong to one split, their rows
    are the training rows, as the recipe says: the glob `test*.csv` names them alone.

    Args:
        pattern: a path or glob; a URL has the training rows.
    """
    files = [] if "://" in pattern or not glob.has_magic(pattern) else files_of(pattern)
    splits: dict[str, list[str]] = {}
    for file in files:
        word = word_of_split(PurePath(file).name)
        name = PurePath(file).parent.name if word is None else word[0]
        splits.setdefault(SPLIT_OF.get(name.lower(), "train"), []).append(file)
    return {split: splits[split] for split in SPLIT_WORDS if split in splits} if len(splits) > 1 else {}


def columns_in(folder: str, *, has_columns: bool) -> str | None:
    """Return the glob of the column files in a folder; None for a folder of other files, and for all other paths.

    Args:
        folder: a path.
        has_columns: whether the recipe names the columns of the files. `.txt` files count only then.
    """
    if "://" in folder or not Path(folder).is_dir():
        return None
    found = Counter(ending_of(path) for path in glob.glob("**", root_dir=folder, recursive=True) if "." in path)
    wanted = {ending: name for ending, name in ENDINGS.items() if name == ("conll" if has_columns else "conllu")}
    ending = max(found.keys() & wanted.keys(), key=found.__getitem__, default=None)
    others = found.keys() & ENDINGS.keys() - {"conll", "conllu"}
    is_most = ending is not None and all(found[ending] >= found[other] for other in others)
    return str(Path(folder) / "**" / f"*{ending}") if is_most else None


def names_in(split: str) -> set[str]:
    """Return the names of splits in a slice as `datasets` writes it, such as `train` in `train[:80%]`."""
    return {split, *(part.partition("[")[0].strip() for part in split.split("+"))}
