"""Readers of CoNLL column files and CoNLL-U treebanks, sentence by sentence."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from mtl_nlp.data.opening import opened
from mtl_nlp.errors import DataError

CONLLU_COLUMNS = ("id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

ANNOTATED = ("lemma", "upos", "xpos", "head", "deprel", "deps")
"""The columns of CoNLL-U in which an underscore means that a word is not annotated.

In FEATS and MISC, an underscore means that a word has no features and no notes. The lemma of the word `_` is `_`.
"""
STANDARD_INPUT = "-"
"""The path that stands for standard input."""

Report = Callable[[int, DataError], None]
"""A function that gets the number of a line and the reason why the line cannot be read."""

_COMMENT = re.compile(r"^#\s*(?P<key>[\w:.-]+)\s*=\s*(?P<value>.*)$")

_OPENS_COMMENT = re.compile(r"# |#[\w:.-]+ =")
"""The start of a comment in column files, in which a hashtag such as `#a=b` can be the first word of a sentence."""


def read_conll(path: str | Path, columns: Sequence[str], filled: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Read sentences from a file of columns, separated by tabs, or by spaces if a line has no tab.

    Lines such as `# topic = travel` before a sentence's first word are comments: values for the complete sentence. `#`
    does not start a comment anywhere else, so hashtags are safe. `-DOCSTART-` lines are read as empty lines.

    Args:
        path: the file, UTF-8.
        columns: the names of the columns.
        filled: the columns without empty cells, such as columns of tags.

    Yields:
        One dict per sentence: a list of strings per column, and a string per comment.

    Raises:
        DataError: if a line has a different number of columns, or an empty cell in a column that should have none.
    """

    def is_comment(line: str) -> bool:
        return bool(_OPENS_COMMENT.match(line)) and (bool(_COMMENT.match(line)) or len(_split(line)) != len(columns))

    for first_line, comments, lines in _sentences(path, is_comment):
        rows = [_split(line) for line in lines]
        for number, row in enumerate(rows, start=first_line):
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {number}: expected {len(columns)} columns ({', '.join(columns)}), found {len(row)}: "
                    f"{lines[number - first_line]!r:.100}."
                )
            row[:] = _cells(f"{path}, line {number}", columns, row, filled)
        yield comments | {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}


def read_conllu(path: str | Path, filled: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Read sentences from a CoNLL-U file: the columns `CONLLU_COLUMNS` (FORM is `tokens`) and the comments.

    The words are syntactic words: lines of multi-word ranges (`3-4`) and empty nodes (`5.1`) are left out, since they
    have no tags. An underscore in the columns `ANNOTATED` means that the word is not annotated, and becomes None.

    Args:
        path: the file, UTF-8.
        filled: the columns without empty cells.

    Yields:
        One dict per sentence, like `read_conll`.

    Raises:
        DataError: if a line does not have ten tab-separated columns, does not start with a word's id, or has an empty
            cell in a column that should have none.
    """
    for first_line, comments, lines in _sentences(path, re.compile("#").match):
        words: list[list[str | None]] = []
        for number, line in enumerate(lines, start=first_line):
            row = line.split("\t")
            if len(row) != len(CONLLU_COLUMNS):
                raise DataError(
                    f"{path}, line {number}: expected 10 tab-separated columns, found {len(row)}: {line!r:.100}."
                )
            if not re.fullmatch(r"\d+(?:[-.]\d+)?", row[0]):
                raise DataError(f"{path}, line {number}: expected a word's id, found {row[0]!r}.")
            if row[0].isdigit():
                cells = _cells(f"{path}, line {number}", CONLLU_COLUMNS, row, filled)
                words.append(
                    [
                        None if cell == "_" and key in ANNOTATED and not (key == "lemma" and cells[1] == "_") else cell
                        for key, cell in zip(CONLLU_COLUMNS, cells, strict=True)
                    ]
                )
        columns = zip(*words, strict=True) if words else ([] for _ in CONLLU_COLUMNS)
        yield comments | {name: list(values) for name, values in zip(CONLLU_COLUMNS, columns, strict=True)}


def _cells(where: str, columns: Sequence[str], row: Sequence[str], filled: Collection[str]) -> list[str]:
    """Return the cells of a line without the blanks around them.

    A no-break space or another special space is a blank around a tag, but may be a part of a word.

    Raises:
        DataError: if a cell in one of the filled columns is empty.
    """
    cells = [cell.strip() if column in filled else cell.strip(" ") for column, cell in zip(columns, row, strict=True)]
    for column, cell in zip(columns, cells, strict=True):
        if column in filled and not cell:
            raise DataError(
                f"{where}: the cell in column {column!r} is empty. Write a tag, or `_` for a word without a label and "
                f"`label_map: {{task: {{_: null}}}}`."
            )
    return cells


def read_words(
    path: str | Path, *, is_conllu: bool = False, report: Report | None = None
) -> Iterator[tuple[int, list[str] | DataError]]:
    """Yield the words of each sentence in a column file, regardless of the columns without words.

    Args:
        path: the file.
        is_conllu: whether the file is a CoNLL-U treebank; otherwise, the words are in the first column.
        report: see `read_lines`.

    Yields:
        The number of the sentence's last line, and its words, or the reason why the sentence cannot be read.
    """
    is_comment = re.compile("#").match if is_conllu else _OPENS_COMMENT.match
    for first_line, _, lines in _sentences(path, is_comment, report):
        last_line = first_line + len(lines) - 1
        try:
            yield last_line, _forms(path, first_line, lines) if is_conllu else [_split(line)[0] for line in lines]
        except DataError as error:
            yield last_line, error


def _forms(path: str | Path, first_line: int, lines: Sequence[str]) -> list[str]:
    """Return the words of a sentence in CoNLL-U."""
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=first_line):
        if len(row) != len(CONLLU_COLUMNS) or not re.fullmatch(r"\d+(?:[-.]\d+)?", row[0]):
            raise DataError(
                f"{path}, line {number}: expected 10 tab-separated columns, of which the first is a word's id. Found "
                f"{lines[number - first_line]!r:.100}."
            )
    return [row[1] for row in rows if row[0].isdigit()]


def read_lines(path: str | Path, report: Report | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of each line in a file, without line ends and the file's byte order mark.

    A compressed file is decompressed. The lines of a file may end in CR alone.

    Args:
        path: the file; `STANDARD_INPUT` for standard input, whose lines are yielded as soon as they arrive.
        report: a function that gets the number of a line that is not UTF-8, and the error, which is then not raised.
            The line is yielded with U+FFFD for its bytes that are not UTF-8.

    Raises:
        DataError: if a line is not UTF-8, or a compressed file is damaged.
    """
    is_input = str(path) == STANDARD_INPUT
    with contextlib.nullcontext(sys.stdin.buffer) if is_input else opened(path) as file:
        for number, raw in enumerate(file if is_input else _raw_lines(cast("io.BufferedReader", file)), start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                name = "standard input" if is_input else path
                flaw = DataError(f"{name}, line {number}: not UTF-8: {error.reason} at byte {error.start} of the line.")
                if report is None:
                    raise flaw from error
                report(number, flaw)
                line = raw.decode("utf-8", errors="replace")
            yield number, line.rstrip("\r\n")


def _raw_lines(file: io.BufferedReader) -> Iterable[bytes]:
    """Return the lines of a file, whose first bytes show whether its lines end in CR alone."""
    head = file.peek(8192)
    return file.read().splitlines(keepends=True) if b"\r" in head[:-1] and b"\n" not in head else file


def _sentences(
    path: str | Path, is_comment: Callable[[str], object], report: Report | None = None
) -> Iterator[tuple[int, dict[str, str], list[str]]]:
    """Yield (line number of the first word, comments, word lines) of each sentence."""
    comments: dict[str, str] = {}
    lines: list[str] = []
    first_line = 0
    for number, line in read_lines(path, report):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if lines:
                yield first_line, comments, lines
                comments, lines = {}, []
        elif not lines and is_comment(line):
            comment = _COMMENT.match(line)
            if comment:
                comments[comment["key"]] = comment["value"].strip()
        else:
            first_line = first_line if lines else number
            lines.append(line)
    if lines:
        yield first_line, comments, lines


def _split(line: str) -> list[str]:
    """Return the columns of a line. Only tabs or spaces separate them, so a word may hold a no-break space."""
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")]
    return [column for column in line.split(" ") if column]
