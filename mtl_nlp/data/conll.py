"""Reading CoNLL column files and CoNLL-U treebanks, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONLLU_COLUMNS = ("id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_COMMENT = re.compile(r"^#\s*(?P<key>[\w:.-]+)\s*=\s*(?P<value>.*)$")


class DataError(ValueError):
    """Data that cannot be used; the message names file and line, or dataset and row, and what was found."""


def read_conll(path: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read sentences from a file of columns, separated by tabs, or by blanks where a line has no tab.

    Before a sentence's first word, lines such as `# topic = travel` are columns of the whole sentence. `#` opens a
    comment nowhere else, so hashtags are safe. `-DOCSTART-` lines are skipped.

    Args:
        path: the file, UTF-8.
        columns: a name for each column.

    Yields:
        One dict a sentence: a list of strings for each column, and the comments' strings.

    Raises:
        DataError: on a line with another number of columns.
    """
    for first_line, comments, lines in _sentences(path):
        rows = [_split(line) for line in lines]
        for number, row in enumerate(rows, start=first_line):
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {number}: expected {len(columns)} columns ({', '.join(columns)}), found {len(row)}: "
                    f"{lines[number - first_line]!r:.100}."
                )
        if rows[0][0] != "-DOCSTART-":
            yield comments | {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}


def read_conllu(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read sentences from a CoNLL-U file: the columns `CONLLU_COLUMNS` (FORM is `tokens`) and the comments.

    The units are syntactic words: lines of multi-word ranges (`3-4`) and empty nodes (`5.1`) carry no tags of their
    own and are left out.

    Yields:
        One dict a sentence, as `read_conll` does.

    Raises:
        DataError: on a line that has not ten tab-separated columns, or an id that is none.
    """
    for first_line, comments, lines in _sentences(path):
        words = []
        for number, line in enumerate(lines, start=first_line):
            row = line.split("\t")
            if len(row) != len(CONLLU_COLUMNS):
                raise DataError(
                    f"{path}, line {number}: expected 10 tab-separated columns, found {len(row)}: {line!r:.100}."
                )
            if not re.fullmatch(r"\d+(?:[-.]\d+)?", row[0]):
                raise DataError(f"{path}, line {number}: expected a word's id, found {row[0]!r}.")
            if row[0].isdigit():
                words.append(row)
        columns = zip(*words, strict=True) if words else ([] for _ in CONLLU_COLUMNS)
        yield comments | {name: list(values) for name, values in zip(CONLLU_COLUMNS, columns, strict=True)}


def _sentences(path: str | Path) -> Iterator[tuple[int, dict[str, str], list[str]]]:
    """(number of the first word's line, comments, word lines) of each sentence."""
    comments: dict[str, str] = {}
    lines: list[str] = []
    first_line = 0
    with open(path, encoding="utf-8-sig") as file:
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.rstrip("\r\n")
                comment = None if lines else _COMMENT.match(line)
                if comment:
                    comments[comment["key"]] = comment["value"].strip()
                elif line.strip() and not (not lines and line.startswith("# ")):
                    first_line = first_line if lines else number
                    lines.append(line)
                elif lines:
                    yield first_line, comments, lines
                    comments, lines = {}, []
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    if lines:
        yield first_line, comments, lines


def _split(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()
