"""The inputs of `predict`: texts, pairs or words from files of lines, tables, JSONL and columns, or standard input."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mtl_nlp.data.conll import STANDARD_INPUT, read_conllu, read_first_column, read_lines
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Input(NamedTuple):
    """An input.

    Attributes:
        content: the text, or all keys of the input, such as an id, for the output.
        question: the part of the input that the pipeline reads.
    """

    content: str | dict[str, Any]
    question: str | dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A file of inputs.

    Attributes:
        path: the file; `-` for standard input.
        format: `text` (one text per line; an empty line is an empty text), `csv` and `tsv` (a header, and a row per
            text), `jsonl` (objects with `text` and `text_pair`, or `tokens`), `conll` (one word per line, in the first
            column) or `conllu`.
        text_column: the column of the texts in a table or in JSONL; by default `text`, or the only column of a table.
        text_pair_column: the column of the second texts of pairs; by default `text_pair` if the file has it.
    """

    path: Path
    format: str = "text"
    text_column: str | None = None
    text_pair_column: str | None = None

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
            DataError: if a line cannot be read, or a column is missing; the message names the line number.
        """
        if self.format in {"conll", "conllu"}:
            path = self.path
            sentences = read_first_column(path) if self.format == "conll" else (s["tokens"] for s in read_conllu(path))
            for words in sentences:
                yield Input({"tokens": words}, {"tokens": words})
        elif self.format in {"csv", "tsv"}:
            yield from self._table()
        else:
            for number, line in read_lines(self.path):
                yield self._json_input(number, line) if self.format == "jsonl" else Input(line, line)

    def count(self) -> int | None:
        """Return the number of inputs, for the progress bar; None for standard input."""
        if self.is_stream:
            return None
        if self.format in {"csv", "tsv"}:
            return sum(1 for _ in self._rows()) - 1
        with open(self.path, "rb") as lines:
            if self.format in {"text", "jsonl"}:
                return sum(1 for _ in lines)
            blank, sentences = True, 0
            for line in lines:
                is_blank = not line.strip() or line.startswith(b"# ")
                sentences += blank and not is_blank
                blank = is_blank
            return sentences

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the last line, and the cells, of each row of a table that is not blank."""
        csv.field_size_limit(sys.maxsize)
        lines = (f"{line}\n" for _, line in read_lines(self.path))
        reader = csv.reader(lines, delimiter="\t" if self.format == "tsv" else ",")
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{self.name}, line {reader.line_num}: cannot be read: {one_line(error)}.") from error

    def _table(self) -> Iterator[Input]:
        rows = self._rows()
        header = next(rows, (0, []))[1]
        if not header:
            return
        columns = self._columns(header)
        for number, cells in rows:
            if len(cells) != len(header):
                raise DataError(
                    f"{self.name}, line {number}: expected {len(header)} columns ({', '.join(header):.100}), found "
                    f"{len(cells)}."
                )
            row = dict(zip(header, cells, strict=True))
            yield Input(row, {key: row[column] for key, column in columns.items()})

    def _columns(self, header: Sequence[str]) -> dict[str, str]:
        """Return the column of each input of the pipeline."""
        text = self.text_column or ("text" if "text" in header or len(header) > 1 else header[0])
        pair = self.text_pair_column or ("text_pair" if "text_pair" in header else None)
        for option, column in (("--text-column", text), ("--text-pair-column", pair)):
            if column is not None and column not in header:
                raise DataError(f"{self.name}: no column {column!r} ({option}). {did_you_mean(column, header)}")
        return {"text": text} if pair is None else {"text": text, "text_pair": pair}

    def _json_input(self, number: int, line: str) -> Input:
        where = f"{self.name}, line {number}"
        content = _parsed(where, line)
        text, pair = self.text_column or "text", self.text_pair_column or "text_pair"
        if not isinstance(content, dict) or not (text in content or "tokens" in content):
            raise DataError(f'{where}: expected an object with "{text}" or "tokens". Found {line.strip():.80}.')
        if "tokens" in content and self.text_column is None:
            if not isinstance(content["tokens"], list) or not all(isinstance(word, str) for word in content["tokens"]):
                raise DataError(f'{where}: "tokens" should be a list of strings. Found {line.strip():.80}.')
            return Input(content, {"tokens": content["tokens"]})
        if not isinstance(content.get(text), str):
            raise DataError(f'{where}: "{text}" should be a string. Found {line.strip():.80}.')
        second = content.get(pair)
        if not isinstance(second, str | None):
            raise DataError(f'{where}: "{pair}" should be a string. Found {line.strip():.80}.')
        question = {"text": content[text]}
        return Input(content, question if second is None else {**question, "text_pair": second})


def _parsed(where: str, line: str) -> Any:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise DataError(f"{where}: cannot be read as JSON: {one_line(error)}") from error
    if _SURROGATE_ESCAPE.search(line):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: half of a surrogate pair is not a character.") from error
    return content
