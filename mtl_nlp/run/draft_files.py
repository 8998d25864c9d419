"""The data files from which a recipe is drafted: their splits, formats and first rows. Imports no torch."""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_nlp.data.conll import read_conll, read_conllu, read_lines
from mtl_nlp.errors import DataError
from mtl_nlp.messages import one_line
from mtl_nlp.recipe.files import ENDINGS, SPLIT_OF, SPLIT_WORDS, word_of_split

FORMATS = {ending: name for ending, name in ENDINGS.items() if name not in {"conll", "arrow"}}
"""The format for each suffix. A file with a different suffix has columns of words."""

_READ_ROWS = 20_000
_SNIFFED_LINES = 1_000
_SNIFFED_ROWS = 100
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class DataFiles:
    """The files of one dataset.

    Attributes:
        name: the name of the dataset.
        format: `csv`, `tsv`, `json`, `parquet`, `conllu` or `conll`.
        splits: split -> its files in order.
        is_named: whether the names of the files say their splits; otherwise all rows are for training.
    """

    name: str
    format: str
    splits: Mapping[str, Sequence[Path]]
    is_named: bool

    @property
    def separator(self) -> str:
        """The separator of the columns of a table: of CSV files, the one that divides the first rows evenly."""
        return "\t" if self.format == "tsv" else separator_of(self.splits["train"][0])

    def rows(self) -> list[dict[str, Any]]:
        """Return the first training rows. A row of columns has a list of strings per column, `0`, `1`, …

        Raises:
            DataError: if a file cannot be read or has no rows.
        """
        found: list[dict[str, Any]] = []
        for path in self.splits["train"]:
            try:
                found += itertools.islice(_rows_of(path, self.format), _READ_ROWS - len(found))
            except (OSError, ValueError, csv.Error) as error:
                raise error if isinstance(error, DataError) else DataError(f"{path}: {one_line(error)}.") from error
        if not found:
            raise DataError(f"{', '.join(map(str, self.splits['train']))}: the files have no rows.")
        return found


def find_files(paths: Iterable[str | Path]) -> list[DataFiles]:
    """Return the datasets that files belong to: files of one format whose names differ only in words such as `train`.

    Args:
        paths: files, or folders, whose files are taken at any depth.

    Raises:
        DataError: if a file does not exist, or the files of a dataset have no training rows.
    """
    groups: dict[tuple[str, tuple[str, str]], dict[str, list[Path]]] = {}
    for path in _all_files(paths):
        split, rest = _split_of(path)
        groups.setdefault((_format_of(path), rest), {}).setdefault(split, []).append(path)
    found, names = [], set[str]()
    for (file_format, rest), splits in groups.items():
        is_named = splits.keys() != {""}
        if "" in splits:
            splits.setdefault("train", []).extend(splits.pop(""))
        if "train" not in splits:
            shown = ", ".join(str(path) for files in splits.values() for path in files)
            raise DataError(f"{shown:.200}: there is no file for training. Name it too, or put `train` into its name.")
        name = _free_name(re.sub(r"\W+", "_", rest[-1] or rest[0]).strip("_") or "data", names)
        ordered = {split: splits[split] for split in SPLIT_WORDS if split in splits}
        found.append(DataFiles(name, file_format, ordered, is_named))
    return found


def _free_name(name: str, names: set[str]) -> str:
    others = (f"{name}_{number}" for number in itertools.count(2))
    free = next(each for each in itertools.chain([name], others) if each not in names)
    names.add(free)
    return free


def _all_files(paths: Iterable[str | Path]) -> list[Path]:
    files: list[Path] = []
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise DataError(f"There is no file {path}.")
        inner = (each for each in sorted(path.rglob("*")) if each.is_file() and _is_data(each))
        files += inner if path.is_dir() else [path]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no data files. Expected {', '.join(FORMATS)} or CoNLL columns.")
    return list(dict.fromkeys(files))


def _is_data(path: Path) -> bool:
    """Return whether a file of a folder has data: it has a known suffix or columns, and is not hidden."""
    if path.name.startswith(".") or path.suffix.lower() in {".md", ".yaml", ".yml"}:
        return False
    try:
        return path.suffix.lower() in FORMATS or _has_columns(path)
    except DataError:
        return False


def _format_of(path: Path) -> str:
    found = FORMATS.get(path.suffix.lower())
    if found in {None, "tsv"} and _has_columns(path):
        return "conll"
    if found is None:
        raise DataError(
            f"{path}: neither the ending nor the lines show a format. Expected {', '.join(FORMATS)}, or words in "
            f"columns with an empty line after each sentence."
        )
    return found


def _has_columns(path: Path) -> bool:
    """Return whether a file has lines of equally many columns, with empty lines between sentences."""
    lines = [line for _, line in itertools.islice(read_lines(path), _SNIFFED_LINES)]
    words = [line for line in lines if line.strip() and not line.startswith(("# ", "-DOCSTART-"))]
    counts = {len(line.split("\t") if "\t" in line else line.split()) for line in words}
    has_blank = any(not line.strip() for line in lines[:-1])
    has_blank |= path.suffix.lower() not in FORMATS and len(words) < _SNIFFED_LINES // 10  # may be one sentence
    return len(counts) == 1 and counts.pop() > 1 and has_blank


def _split_of(path: Path) -> tuple[str, tuple[str, str]]:
    """Return the split of a file, `""` if its name and folder name none, and the part of the path without the split."""
    word = word_of_split(path.name)
    if word is not None:
        rest = (path.name[: word.start()] + path.name[word.end() :]).removesuffix(path.suffix)
        return SPLIT_OF[word[0].lower()], (path.parent.resolve().name, re.sub(r"^\W+|\W+$", "", rest))
    folder = path.resolve().parent
    if folder.name.lower() in SPLIT_OF:  # as a whole, since `test_project` is not a split
        return SPLIT_OF[folder.name.lower()], (folder.parent.name, "")
    return "", (path.parent.resolve().name, path.stem)


def _rows_of(path: Path, file_format: str) -> Iterator[dict[str, Any]]:
    if file_format in {"csv", "tsv"}:
        return _table(path, "\t" if file_format == "tsv" else separator_of(path))
    if file_format == "json":
        return _json(path)
    if file_format == "parquet":
        from pyarrow import parquet

        batches = parquet.ParquetFile(path).iter_batches(1000)
        return (row for batch in batches for row in batch.to_pylist())
    if file_format == "conllu":
        return read_conllu(path)
    return read_conll(path, [str(number) for number in range(count_columns(path))])


def count_columns(path: Path) -> int:
    """Return the number of columns in the first line of words."""
    lines = (line for _, line in read_lines(path))
    first = next(line for line in lines if line.strip() and not line.startswith(("# ", "-DOCSTART-")))
    return len(first.split("\t") if "\t" in first else first.split())


def separator_of(path: Path) -> str:
    """Return the separator of a CSV file: the comma, or another if it alone divides the first rows evenly.

    Raises:
        DataError: if the file is not text.
    """
    csv.field_size_limit(sys.maxsize)
    for separator in _SEPARATORS:
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = itertools.islice(csv.reader(file, delimiter=separator), _SNIFFED_ROWS)
                counts = {len(row) for row in rows if row}
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: {one_line(error)}.") from error
        if len(counts) == 1 and counts.pop() > 1:
            return separator
    return _SEPARATORS[0]


def _table(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter=delimiter):
            yield {key: _value(cell) for key, cell in row.items() if key is not None and isinstance(cell, str | None)}


def _value(cell: str | None) -> Any:
    """Return the value of a cell as `datasets` reads it: a number, a boolean, a text, or None for an empty cell."""
    if not cell or not cell.strip():
        return None
    if cell.lower() in {"true", "false"}:
        return cell.lower() == "true"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _json(path: Path) -> Iterator[dict[str, Any]]:
    lines = read_lines(path)
    first = next(((number, line) for number, line in lines if line.strip()), (0, ""))
    if first[1].lstrip().startswith("["):
        yield from json.loads("\n".join([first[1], *(line for _, line in lines)]))
        return
    for number, line in itertools.chain([first], lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error.msg}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object. Found {line.strip():.80}.")
        yield row
