"""The rows of CSV files as they stand in the files: checks before pandas reads the rows, which guesses types.

pandas shifts the columns of a row with too many fields, reads the classes `1` and `01` as the same number, and guesses
the types of every 10,000 rows again. So the columns of texts and of some labels are read as texts.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_nlp.data.opening import has_several_files, opened, undecodable
from mtl_nlp.errors import DataError
from mtl_nlp.messages import conceal, counted, did_you_mean, one_line

_OTHER_ROWS = frozenset(
    {
        *("usecols", "prefix", "converters", "skiprows", "nrows", "thousands", "lineterminator", "comment", "dialect"),
        *("skipfooter", "skip_blank_lines", "features", "date_format", "error_bad_lines", "mangle_dupe_cols"),
    }
)
"""The options with which pandas reads other rows, columns or types than these checks; such files are not checked."""

SEPARATORS = ("\t", ";", ",", "|")
"""The usual characters between two cells."""

_MOST_CLASSES = 10_000
"""The number of different texts of a column of labels that are looked at; a column with more has numbers."""

_LONG_ROW, _FEWEST_INNER = 10, 2
"""The number of lines of a row that is probably too long, and the fewest lines inside of a row that look like rows."""

_LEADING_ZERO = re.compile(r"[+-]?0\d")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A text that pandas reads as a number."""
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")
"""A whole number as pandas writes a column of whole numbers with gaps."""
_TRUTH = {"True", "TRUE", "true", "False", "FALSE", "false"}
_EXACT = 2**53
"""The largest whole number below which float64, the type of numbers with gaps in pandas, holds every whole number."""

_MOST_SHOWN = 8
"""The largest number of columns that a message names."""

_END = "\0"
"""The line after the last line of a file. It becomes a row of its own unless a quote is open."""


@dataclass
class CsvFindings:
    """Facts about the CSV files of a split or dataset.

    Attributes:
        notes: sentences about rows that may have been read in a different way than the user expects.
        classes: column of labels -> its different texts, at most about `_MOST_CLASSES`.
    """

    notes: list[str] = field(default_factory=list)
    classes: dict[str, set[str]] = field(default_factory=dict)

    def add(self, other: CsvFindings) -> None:
        """Add the facts about the files of a different split."""
        self.notes += other.notes
        for column, texts in other.classes.items():
            self.classes.setdefault(column, set()).update(texts)

    def text_columns(self) -> list[str]:
        """Return the columns of labels that pandas should read as texts, because numbers would not keep all classes."""
        return [column for column, texts in self.classes.items() if texts and not _are_kept_by_numbers(texts)]


@dataclass(frozen=True)
class _Layout:
    """The properties of a file that its rows are checked against."""

    path: str
    columns: list[str]
    separator: str
    labels: Mapping[str, int]
    checks_fields: bool


def can_check(options: Mapping[str, Any]) -> bool:
    """Return whether the checks read a file with some options of `load_dataset` exactly as pandas does."""
    header, names = options.get("header", "infer"), options.get("names") or options.get("column_names")
    return (
        not any(key in _OTHER_ROWS for key, value in options.items() if value is not None)
        and (header == "infer" or (header is None if names else header == 0))
        and len(_separator(options)) == 1
        and options.get("engine") != "pyarrow"
    )


def why_unchecked(options: Mapping[str, Any]) -> str:
    """Return the option because of which `can_check` is false, for a note."""
    header = ["header"] if "header" in options else []
    found = [key for key, value in options.items() if key in _OTHER_ROWS and value is not None]
    of_separator = ["delimiter" if options.get("delimiter") else "sep"] if len(_separator(options)) != 1 else []
    return [*found, *of_separator, *(["engine"] if options.get("engine") == "pyarrow" else []), *header][0]


def text_or_none(cell: str) -> str | None:
    """Return the text of a cell, or None for an empty cell, which is a missing value."""
    return cell or None


def keeps_texts(options: Mapping[str, Any]) -> bool:
    """Return whether the only missing value is the empty cell, as by default, so that columns can be read as texts."""
    return (
        options.get("keep_default_na") is False
        and options.get("na_values") in ([""], "", None, [])
        and options.get("na_filter", True) is True
        and options.get("decimal", ".") == "."
        and not (options.get("true_values") or options.get("false_values"))
    )


def check_csv(
    name: str,
    files: Iterable[str],
    options: Mapping[str, Any],
    *,
    wanted: Sequence[str],
    labels: Sequence[str],
    most_rows: int | None = None,
) -> CsvFindings:
    """Check the CSV files of one split.

    Args:
        name: dataset and split, for notes.
        files: the files.
        options: the arguments of `load_dataset`, see `can_check`.
        wanted: the columns that the recipe uses, unless its function `map` may make them.
        labels: the columns of labels.
        most_rows: the largest number of rows per file that are read; None for all rows.

    Raises:
        DataError: if a file is empty, cannot be decoded, has a different separator or columns, a row has more fields
            than there are columns, or a quote is not closed. The message names the file and line.
    """
    findings, rows, first = CsvFindings(classes={column: set() for column in labels}), 0, None
    for path in files:
        if has_several_files(path):
            return CsvFindings()
        layout, count = _check_file(name, path, options, wanted, findings, most_rows)
        rows += count
        first = first or layout
        if not set(layout.columns) <= set(first.columns):
            raise DataError(
                f"{path}: all files of a split should have the columns of the first file. This file has "
                f"{_shown(layout.columns)}, and {first.path} has {_shown(first.columns)}."
            )
        findings.notes += [
            f"{name}: {conceal(path)} has no column {column!r}; its rows lack this label"
            for column in first.labels
            if column not in layout.labels
        ]
    if first is not None and not rows:
        raise DataError(f"{first.path}: the file has column names and no rows, so the split has no rows.")
    return findings


def _check_file(
    name: str,
    path: str,
    options: Mapping[str, Any],
    wanted: Sequence[str],
    findings: CsvFindings,
    most_rows: int | None,
) -> tuple[_Layout, int]:
    """Check one file, add what is found to the findings, and return the file's layout and number of rows."""
    csv.field_size_limit(sys.maxsize)
    names = options.get("names") or options.get("column_names")
    rows = _rows(path, _reader(path, options))
    header = list(map(str, names)) if names else next((row for _, _, row in rows), None)
    if header is None:
        raise DataError(f"{path}: the file is empty.")
    _check_header(path, header, options, wanted)
    notes = [
        f"{name}: {conceal(path)} has several columns {column!r}; the first one is used"
        for column in dict.fromkeys(wanted)
        if header.count(column) > 1
    ]
    places = {column: header.index(column) for column in findings.classes if column in header}
    checks_fields = options.get("index_col") is None and options.get("on_bad_lines", "error") == "error"
    layout = _Layout(path, header, _separator(options), places, checks_fields)
    count, short, long = 0, _Lines(), _Lines()
    texts: dict[str, set[str]] = {column: set() for column in places}
    for start, lines, row in itertools.islice(rows, most_rows):
        count += 1
        _check_row(layout, start, row)
        for column, place in places.items():
            if place < len(row) and len(texts[column]) <= _MOST_CLASSES and row[place]:
                texts[column].add(row[place])
        if len(row) < len(header):
            short.add(start)
        known = {place: texts[column] for column, place in places.items()}
        if lines > 1 and swallows_rows(row, lines, len(header), layout.separator, known):
            long.add(start, lines)
    for column, found in texts.items():
        findings.classes[column] |= _whole_numbers(found)
    findings.notes += notes + _notes_on_rows(name, path, short, long)
    return layout, count


@dataclass
class _Lines:
    """The number of rows with some property, and the first of them."""

    count: int = 0
    first: int = 0
    length: int = 0

    def add(self, line: int, length: int = 1) -> None:
        """Count a row that starts in a line."""
        if not self.count:
            self.first, self.length = line, length
        self.count += 1


def _notes_on_rows(name: str, path: str, short: _Lines, long: _Lines) -> list[str]:
    notes, path = [], conceal(path)
    has, spans = (f"row of {path} has", f"rows of {path} have"), (f"row of {path} spans", f"rows of {path} span")
    if short.count:
        notes.append(
            f"{name}: {counted(short.count, *has)} fewer fields than there are columns (the first in line "
            f"{short.first}); the missing cells are empty"
        )
    if long.count:
        notes.append(
            f"{name}: {counted(long.count, *spans)} several lines between quotes (the first has {long.length} lines "
            f"from line {long.first}); if quotes are ordinary characters in this file, set `quoting: 3`"
        )
    return notes


def _check_header(path: str, header: Sequence[str], options: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Check that the names of the columns are separated as the options say."""
    missing = [column for column in wanted if column not in header]
    if not missing:
        return
    line = _separator(options).join(header)
    for separator in SEPARATORS:
        if separator != _separator(options) and set(wanted) <= {part.strip(' "') for part in line.split(separator)}:
            raise DataError(
                f"{path}: no column {missing[0]!r}. The separator is {_separator(options)!r}, and the first line is "
                f"{line!r:.80}. Set `sep: {json.dumps(separator)}`."
            )
    if len(missing) == len(set(wanted)):
        remedy = " If the file has no line with names, give `column_names`, all names in their order."
        if line.lstrip().startswith(("{", "[")):
            remedy = " The file has JSON. Set `path: json` and the file as `data_files`."
        raise DataError(f"{path}: no column {missing[0]!r}. {did_you_mean(missing[0], header)}{remedy}")


def _check_row(layout: _Layout, line: int, row: Sequence[str]) -> None:
    if layout.checks_fields and len(row) > len(layout.columns):
        raise DataError(
            f"{layout.path}, line {line}: expected {len(layout.columns)} fields ({_shown(layout.columns)}), found "
            f"{len(row)}: {layout.separator.join(row)!r:.80}. Put texts with {layout.separator!r} between quotes. If "
            f"the first field of each row is its number, set `index_col: 0`."
        )


def swallows_rows(
    row: Sequence[str], lines: int, columns: int, separator: str, known: Mapping[int, Collection[str]] | None = None
) -> bool:
    """Return whether a row of several lines has probably swallowed rows because of a stray quote.

    The lines inside of a cell should then have the fields of a row. A single line is a sign of it if its separator is
    rare in texts, unlike the comma, or if the line has a known label.

    Args:
        row: the cells of the row.
        lines: the number of lines of the row.
        columns: the number of columns of the file.
        separator: the text between two cells.
        known: the place of a column of labels -> labels in the rows before.
    """
    if lines >= _LONG_ROW:
        return True
    inner = [line for cell in row if "\n" in cell for line in cell.splitlines()[1:-1]]
    if columns == 1 or not inner or any(line.count(separator) != columns - 1 for line in inner):
        return False
    is_labelled = any(
        line.split(separator)[place] in labels for place, labels in (known or {}).items() for line in inner
    )
    return len(inner) >= _FEWEST_INNER or separator != "," or is_labelled


def _rows(path: str, reader: Any) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first line, number of lines, fields) of each row that is not blank.

    Raises:
        DataError: if the last row does not end.
    """
    before = 0
    try:
        for row in reader:
            start, before = before + 1, reader.line_num
            if row == [_END]:
                return
            if row and row[-1].endswith(_END):
                raise DataError(
                    f"{path}, line {start}: a quote starts here and does not end. Close it, or set `quoting: 3` if "
                    f"quotes are ordinary characters in this file."
                )
            if len(row) > 1 or (row and row[0].strip()):
                yield start, before - start + 1, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: cannot be read: {error}.") from error


def _lines(path: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a file with their ends, and `_END`.

    Raises:
        DataError: if the file cannot be decoded or has NUL bytes.
    """
    encoding, errors = options.get("encoding") or "utf-8", options.get("encoding_errors") or "strict"
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    with opened(path) as file, io.TextIOWrapper(file, encoding, errors, newline="") as text:
        try:
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise DataError(
                        f"{path}, line {number}: found a NUL byte, which no text has. Set `encoding`, such as "
                        f"`encoding: utf-16-le`, or repair the file."
                    )
                yield line
        except UnicodeDecodeError as error:
            raise undecodable(path, encoding) from error
    yield _END


def _reader(path: str, options: Mapping[str, Any]) -> Any:
    """Return a reader of the rows of a file."""
    given = {
        key: options[key] for key in ("quotechar", "escapechar", "doublequote", "skipinitialspace") if key in options
    }
    # The remaining styles of quoting differ from the default only in writing.
    is_read_alike = options.get("quoting") in {None, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC}
    given["quoting"] = csv.QUOTE_MINIMAL if is_read_alike else options["quoting"]
    try:
        return csv.reader(_lines(path, options), delimiter=_separator(options), **given)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read with the options of the dataset: {one_line(error)}.") from error


def _separator(options: Mapping[str, Any]) -> str:
    return str(options.get("delimiter") or options.get("sep") or ",")


def _whole_numbers(texts: set[str]) -> set[str]:
    """Return the whole numbers of a column that has only numbers such as `1.0`, else the texts as they stand.

    pandas has written such a column because of its empty cells, and the same classes may be `1` in other files.
    """
    found = [_WHOLE.fullmatch(text.strip()) for text in texts]
    whole = {match[1] for match in found if match is not None}
    return whole if len(whole) == len(texts) else texts


def _are_kept_by_numbers(texts: Iterable[str]) -> bool:
    """Return whether different texts stay different after pandas has turned them into numbers or truth values."""
    found = {text.strip() for text in texts}
    if len(found) < len(set(texts)):
        return False
    if found <= _TRUTH:
        return len({text.lower() for text in found}) == len(found)
    if not all(map(NUMBER.fullmatch, found)) or any(map(_LEADING_ZERO.match, found)):
        return False
    values = {float(text) for text in found}
    return len(values) == len(found) and all(abs(value) < _EXACT for value in values)


def _shown(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _MOST_SHOWN} more" if len(columns) > _MOST_SHOWN else ""
    return ", ".join(map(str, columns[:_MOST_SHOWN])) + more
