"""The flaws of JSON files that `datasets` cannot read: file, line and reason."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.data.opening import has_several_files, opened, undecodable
from mtl_nlp.errors import DataError
from mtl_nlp.messages import did_you_mean, one_line

_COMPARED_ROWS = 10_000
"""Number of first rows of a file whose types are compared with those of the other files."""

_TYPES: Mapping[type, str] = {
    str: "texts",
    bool: "truth values",
    int: "numbers",
    float: "numbers",
    list: "lists",
    dict: "objects",
}


def flaw_in_json(files: Iterable[str], options: Mapping[str, Any]) -> DataError | None:
    """Return an error about the first flaw of some JSON files; None if no flaw is found.

    Args:
        files: the files of a split.
        options: the arguments of `load_dataset`, of which `encoding`, `encoding_errors` and `field` matter.
    """
    single = [path for path in files if not has_several_files(path)]
    try:
        for path in single:
            for _ in _rows(path, options):
                pass
        _check_types(single, options)
    except DataError as error:
        return error
    return None


def check_lists(files: Iterable[str], options: Mapping[str, Any]) -> None:
    """Check the JSON files that are one list or object, in which `datasets` finds no key that is given twice.

    Args:
        files: the files of a split.
        options: the arguments of `load_dataset`, see `flaw_in_json`.

    Raises:
        DataError: if an object has a key twice, or a file is not valid JSON.
    """
    for path in files:
        # Other checks report bytes outside of the encoding, and too many levels.
        with contextlib.suppress(UnicodeDecodeError, RecursionError):
            if Path(path).stat().st_size and not has_several_files(path):
                _whole(path, *_reading(options), options.get("field"))


def _reading(options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the encoding of files, and the treatment of bytes outside of the encoding."""
    encoding = options.get("encoding") or "utf-8"
    encoding = "utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding
    return encoding, options.get("encoding_errors") or "strict"


def _check_types(files: Iterable[str], options: Mapping[str, Any]) -> None:
    """Check that the columns and types of files are those of the first file."""
    types: dict[str, tuple[str, str]] = {}
    for number, path in enumerate(files):
        for row in itertools.islice(_rows(path, options), _COMPARED_ROWS):
            for column, value in row.items():
                found = _TYPES.get(type(value))
                if found is None:
                    continue
                if number and column not in types:
                    raise DataError(
                        f"{path}: the first file of the split has no column {column!r}. All files of a split should "
                        f"have the same columns."
                    )
                before, first = types.setdefault(column, (found, path))
                if before != found and first != path:
                    raise DataError(
                        f"{path}: column {column!r} has {found}, and {first} has {before}. Give the column the same "
                        f"type in all files of a split."
                    )


def _rows(path: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file.

    Raises:
        DataError: if the file has a flaw.
    """
    (encoding, errors), key = _reading(options), options.get("field")
    try:
        whole = _whole(path, encoding, errors, key)
        if whole is not None:
            yield from _rows_of_whole(path, whole, key)
            return
        with _text(path, encoding, errors) as lines:
            for number, line in enumerate(lines, start=1):
                yield from _rows_of_line(f"{path}, line {number}", line)
    except UnicodeDecodeError as error:
        raise undecodable(path, encoding) from error
    except RecursionError as error:
        raise DataError(f"{path}: a value has too many levels of lists and objects.") from error


@contextlib.contextmanager
def _text(path: str, encoding: str, errors: str) -> Iterator[io.TextIOWrapper]:
    with opened(path) as file, io.TextIOWrapper(file, encoding, errors) as text:
        yield text


def _whole(path: str, encoding: str, errors: str, key: str | None) -> Any:
    """Return the content of a file with one list or object; None for a file with an object per line.

    Raises:
        DataError: if the file is empty, or a list or object that is not valid JSON or has a key twice.
    """
    with _text(path, encoding, errors) as lines:
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            raise DataError(f"{path}: the file is empty.")
        if key is None and not first.lstrip().startswith("[") and _is_json(first):
            return None
    with _text(path, encoding, errors) as file:
        text = file.read()
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        if key is None and not first.lstrip().startswith("["):
            return None
        remedy = " Leave out `field` for a file with an object per line." if key is not None else ""
        raise DataError(
            f"{path}, line {error.lineno}: not valid JSON: {error.msg} (character {error.colno} of the line).{remedy}"
        ) from error
    except ValueError as error:  # a key that is given twice, or an integer of thousands of digits
        raise DataError(f"{path}: {one_line(error).rstrip('.')}.") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _rows_of_whole(path: str, whole: Any, key: str | None) -> Iterator[dict[str, Any]]:
    """Yield the objects in the list of a file, or in the list under a key."""
    if key is not None:
        if not isinstance(whole, dict):
            raise DataError(f"{path}: expected an object with the field {key!r}, found a list. Leave out `field`.")
        if key not in whole:
            raise DataError(f"{path}: no field {key!r}. {did_you_mean(key, whole)}")
        whole = whole[key]
    for number, row in enumerate(whole if isinstance(whole, list) else [whole]):
        if isinstance(row, dict):
            yield row
        elif row is not None and not isinstance(row, str):
            raise DataError(f"{path}: expected a list of objects. Entry {number} is {row!r:.80}.")


def _rows_of_line(where: str, line: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a line, which has one object in most files."""
    decoder, text, place = json.JSONDecoder(object_pairs_hook=_without_repetition), line.strip(), 0
    while place < len(text):
        try:
            row, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not valid JSON: {error.msg} (character {error.pos + 1}): {text!r:.80}."
            ) from error
        except ValueError as error:
            raise DataError(f"{where}: {error}.") from error
        if row is not None and not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with a value per column, found {text!r:.80}.")
        if "\\ud" in text.lower():
            _check_surrogates(where, row)
        if row is not None:
            yield row
        place += len(text) - place - len(text[place:].lstrip())


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in row if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is given twice in {row!r:.80}")
    return row


def _check_surrogates(where: str, row: Any) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: an escape such as \\ud83d is half of a character. Write both halves or the character itself."
        ) from error
