"""The inputs of `predict`: texts, pairs or words from files of lines, tables, JSONL and columns, or standard input."""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mtl_nlp.data.conll import STANDARD_INPUT, Report, read_lines, read_words
from mtl_nlp.data.csv_files import SEPARATORS, swallows_rows
from mtl_nlp.data.opening import opened
from mtl_nlp.errors import DataError
from mtl_nlp.messages import counted, did_you_mean, one_line

_COLUMN_NAME = re.compile(r"[^\W\d][\w.-]*(?: [\w.-]+){0,2}")
"""The name of a column, which is at most three words and has no blank beside a comma, unlike most sentences."""

_HEAD = 1 << 10
"""The number of bytes at the start of a file of JSON in which its first bracket is looked for."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Input(NamedTuple):
    """An input.

    Attributes:
        content: the text, or all keys of the input, such as an id, for the output.
        question: the part of the input that the pipeline reads.
        where: the file and the line on which the input ends, for messages.
    """

    content: str | dict[str, Any]
    question: str | dict[str, Any]
    where: str


@dataclass(frozen=True)
class Source:
    """A file of inputs.

    Attributes:
        path: the file; `-` for standard input.
        format: `text` (one text per line; an empty line is an empty text), `csv` and `tsv` (a header, and a row per
            text), `jsonl` (objects with `text` and `text_pair`, or `tokens`; a file may also be one list of such
            objects), `conll` (one word per line, in the first column) or `conllu`.
        text_column: the column of the texts in a table or in JSONL; by default `text`, or the only column of a table.
        text_pair_column: the column of the second texts of pairs; by default `text_pair` if the file has it.
        is_guess: whether the format was not given. A first line that does not look like a text then gets a note.
        separator: the character between the cells of a table; by default a comma or, for `tsv`, a tab.
        notes: sentences about lines that may have been read in a different way than the user expects, after the inputs
            have been read.
    """

    path: Path
    format: str = "text"
    text_column: str | None = None
    text_pair_column: str | None = None
    is_guess: bool = False
    separator: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_stream(self) -> bool:
        """Whether the inputs come from standard input."""
        return str(self.path) == STANDARD_INPUT

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        return "standard input" if self.is_stream else str(self.path)

    def __iter__(self) -> Iterator[Input]:
        """Yield the inputs in the order of the file.

        Raises:
            DataError: if a line or the file cannot be read, or a column is missing; the message names the line number.
        """
        for item in self.items():
            if isinstance(item, DataError):
                raise item
            yield item

    def items(self) -> Iterator[Input | DataError]:
        """Yield the inputs in the order of the file, and the reason instead of an input that cannot be read.

        Raises:
            DataError: if the file cannot be read, or a column is missing.
        """
        flaws: dict[int, DataError] = {}
        try:
            for number, item in self._read(flaws.__setitem__):
                of_item = [flaws.pop(line) for line in sorted(flaws) if line <= number]
                yield of_item[0] if of_item else item
        except (OSError, EOFError, zlib.error) as error:  # such as a compressed file that is truncated
            raise DataError(f"{self.name}: cannot be read: {one_line(error)}.") from error
        yield from flaws.values()

    def count(self) -> int | None:
        """Return the number of inputs, for the progress bar; None for standard input or a file that cannot be read."""
        if self.is_stream:
            return None

        def ignore(number: int, flaw: DataError) -> None:
            pass

        try:
            if self.format in {"csv", "tsv"}:
                return sum(1 for _ in self._rows(ignore)) - 1
            if self._is_list:
                return None
            lines = read_lines if self.format in {"text", "jsonl"} else read_words
            return sum(1 for _ in lines(self.path, report=ignore))
        except (OSError, EOFError, zlib.error, DataError):
            return None

    def _read(self, report: Report) -> Iterator[tuple[int, Input | DataError]]:
        """Yield the number of the last line of each input, and the input or the reason why it cannot be read."""
        if self.format in {"conll", "conllu"}:
            for number, words in read_words(self.path, is_conllu=self.format == "conllu", report=report):
                yield number, words if isinstance(words, DataError) else self._input(number, {"tokens": words})
        elif self.format in {"csv", "tsv"}:
            yield from self._table(report)
        elif self._is_list:
            yield from self._list_items()
        else:
            for number, line in read_lines(self.path, report):
                if self.format == "text":
                    if number == 1 and self.is_guess and (likely := likely_format(line)) is not None:
                        self.notes.append(
                            f"{self.name} was read as one text per line, and its first line looks like {likely}: "
                            f"{line!r:.80}. If it is, add --input-format {likely}"
                        )
                    yield number, self._input(number, line)
                elif line.strip():
                    try:
                        where = f"{self.name}, line {number}"
                        yield number, self._json_input(where, _parsed(where, line), line)
                    except DataError as flaw:
                        yield number, flaw

    @property
    def _is_list(self) -> bool:
        """Whether a file of JSON is one list instead of an object per line, as pandas writes by default."""
        if self.format != "jsonl" or not self.path.is_file():  # the bytes of a pipe can be read only once
            return False
        with opened(self.path) as file:
            head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).split()
        # A line that is a list of texts or numbers is a flaw of a file with an object per line.
        return bool(head) and (head[0] == b"[" or head[0].startswith(b"[{"))

    def _list_items(self) -> Iterator[tuple[int, Input | DataError]]:
        """Yield the number of each object in a list, and the input or the reason why it cannot be read."""
        text = "\n".join(line for _, line in read_lines(self.path))
        found = _parsed(self.name, text)
        for number, content in enumerate(found if isinstance(found, list) else [found], start=1):
            try:
                shown = json.dumps(content, ensure_ascii=False)
                yield number, self._json_input(f"{self.name}, object {number}", content, shown)
            except DataError as flaw:
                yield number, flaw

    def _input(self, number: int, content: Any, question: Any = None) -> Input:
        return Input(content, content if question is None else question, f"{self.name}, line {number}")

    def _rows(self, report: Report) -> Iterator[tuple[int, int, list[str] | DataError]]:
        """Yield the first line, the last line and the cells of each row of a table that is not blank."""
        csv.field_size_limit(sys.maxsize)
        last = ""

        def lines() -> Iterator[str]:
            nonlocal last
            for _, last in read_lines(self.path, report):
                yield f"{last}\n"

        reader = csv.reader(lines(), delimiter=self._separator)
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield first, reader.line_num, self._flaw(first, reader.line_num, f"cannot be read: {one_line(error)}")
                continue
            # In a cell with an open quotation mark, the reader keeps the end of the last line.
            if cells and cells[-1].endswith("\n") and not last.endswith('"'):
                lost = reader.line_num - first + 1
                flaw = f"a quotation mark is not closed, so that {lost} lines have no answer"
                yield first, reader.line_num, self._flaw(first, reader.line_num, flaw)
            elif cells:
                yield first, reader.line_num, cells

    def _flaw(self, first: int, last: int, flaw: str) -> DataError:
        lines = f"line {last}" if first == last else f"lines {first} to {last}"
        return DataError(f"{self.name}, {lines}: {flaw}.")

    def _table(self, report: Report) -> Iterator[tuple[int, Input | DataError]]:
        header: list[str] | DataError = []
        flaws: list[DataError] = []

        def report_row(number: int, flaw: DataError) -> None:
            if header:
                report(number, flaw)
            else:
                flaws.append(flaw)

        rows = self._rows(report_row)
        _, _, header = next(rows, (0, 0, list[str]()))
        if flaws or isinstance(header, DataError):  # the names of the columns
            raise header if isinstance(header, DataError) else flaws[0]
        if not header:
            return
        repeated = next((column for column in header if column.strip() and header.count(column) > 1), None)
        if repeated is not None:
            raise DataError(f"{self.name}, line 1: several columns are called {repeated!r}. Give each its own name.")
        columns, long = self._columns(header), list[tuple[int, int]]()
        for first, last, cells in rows:
            if isinstance(cells, DataError):
                yield last, cells
            elif len(cells) != len(header):
                expected = f"expected {len(header)} columns ({', '.join(header):.100}), found {len(cells)}"
                yield last, self._flaw(first, last, expected)
            else:
                if last > first and swallows_rows(cells, last - first + 1, len(header), self._separator):
                    long.append((first, last))
                row = dict(zip(header, cells, strict=True))
                empty = [column for column in columns.values() if not row[column].strip()]
                if empty:
                    yield last, self._flaw(first, last, f"no text in column {empty[0]!r}")
                else:
                    yield last, self._input(last, row, {key: row[column] for key, column in columns.items()})
        self._note_long_rows(long)

    def _note_long_rows(self, rows: Sequence[tuple[int, int]]) -> None:
        """Add a note about rows that span several lines, from their first and last lines."""
        if rows:
            self.notes.append(
                f"{self.name}: {counted(len(rows), 'row spans', 'rows span')} several lines between quotes (the first "
                f"in lines {rows[0][0]} to {rows[0][1]}), with one answer per row; if quotes are ordinary characters "
                f"in this file, double them and put each text between quotes"
            )

    @property
    def _separator(self) -> str:
        return self.separator or ("\t" if self.format == "tsv" else ",")

    def _columns(self, header: Sequence[str]) -> dict[str, str]:
        """Return the column of each input of the pipeline.

        Raises:
            DataError: if there is no such column, or the cells of the table have a different separator.
        """
        others = (mark for mark in SEPARATORS if len(header) == 1 and mark in header[0])
        other = next(others, None)
        if other is not None and self.text_column not in header:
            expected = {",": "commas", "\t": "tabs"}.get(self._separator, repr(self._separator))
            remedy = "Add --input-format tsv." if other == "\t" else f"Add --sep '{other}'."
            raise DataError(
                f"{self.name}, line 1: expected {expected} between the columns, found {header[0]!r:.80}. {remedy}"
            )
        text = self.text_column or ("text" if "text" in header or len(header) > 1 else header[0])
        pair = self.text_pair_column or ("text_pair" if "text_pair" in header else None)
        for option, column in (("--text-column", text), ("--text-pair-column", pair)):
            if column is not None and column not in header:
                raise DataError(
                    f"{self.name}: no column {column!r} ({option}). {did_you_mean(column, header)} The first line of a "
                    f"table names its columns."
                )
        return {"text": text} if pair is None else {"text": text, "text_pair": pair}

    def _json_input(self, where: str, content: Any, line: str) -> Input:
        text, pair = self.text_column or "text", self.text_pair_column or "text_pair"
        if not isinstance(content, dict) or not (text in content or "tokens" in content):
            raise DataError(f'{where}: expected an object with "{text}" or "tokens". Found {line.strip():.80}.')
        if "tokens" in content and self.text_column is None:
            if not isinstance(content["tokens"], list) or not all(isinstance(word, str) for word in content["tokens"]):
                raise DataError(f'{where}: "tokens" should be a list of strings. Found {line.strip():.80}.')
            if not content["tokens"]:
                raise DataError(f'{where}: no words in "tokens".')
            return Input(content, {"tokens": content["tokens"]}, where)
        if content.get(text, "") is None:
            raise DataError(f'{where}: no text in "{text}".')
        if not isinstance(content.get(text), str):
            raise DataError(f'{where}: "{text}" should be a string. Found {line.strip():.80}.')
        second = content.get(pair)
        if not isinstance(second, str | None):
            raise DataError(f'{where}: "{pair}" should be a string. Found {line.strip():.80}.')
        question = {"text": content[text]}
        return Input(content, question if second is None else {**question, "text_pair": second}, where)


def likely_format(line: str) -> str | None:
    """Return the format that the first line of a file suggests, `csv`, `tsv` or `jsonl`; None for an ordinary text."""
    if line.lstrip().startswith(("{", "[")):
        try:
            return "jsonl" if isinstance(json.loads(line), dict) else None
        except (ValueError, RecursionError):
            return None
    for name, separator in (("tsv", "\t"), ("csv", ",")):
        cells = [cell.strip('"') for cell in line.split(separator)]
        if len(cells) > 1 and len(set(cells)) == len(cells) and all(map(_COLUMN_NAME.fullmatch, cells)):
            return name
    return None


def _parsed(where: str, line: str) -> Any:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        place = f" in line {error.lineno}" if "\n" in line else ""
        raise DataError(f"{where}: not JSON: {error.msg}{place}.") from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise DataError(f"{where}: cannot be read as JSON: {one_line(error)}") from error
    if _SURROGATE_ESCAPE.search(line):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: half of a surrogate pair is not a character.") from error
    return content
