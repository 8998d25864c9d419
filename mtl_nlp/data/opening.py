"""Files that may be compressed or have an unknown encoding: their bytes, and messages with file, line and byte."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from mtl_nlp.errors import DataError
from mtl_nlp.messages import one_line

UTF_8 = "utf-8"

_STARTS: dict[str, re.Pattern[bytes]] = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),  # a text may start with `BZh` too
    ".xz": re.compile(rb"\xfd7zXZ\x00"),
    ".zip": re.compile(rb"PK\x03\x04"),
}
"""The ending of a compressed file -> its first bytes."""

_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_WORKBOOK = "[Content_Types].xml"
"""The file in the archive that a workbook or document of an office program is."""

_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def compression_of(path: str | Path) -> str:
    """Return `.gz`, `.bz2`, `.xz` or `.zip` if the first bytes of a file show this compression, else an empty text."""
    if not Path(path).is_file():  # a pipe, whose bytes can be read only once
        return ""
    with open(path, "rb") as file:
        head = file.read(10)
    return next((ending for ending, start in _STARTS.items() if start.match(head)), "")


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading bytes; a compressed file, also a zip archive of one file, is decompressed.

    Args:
        path: the file.

    Raises:
        DataError: if the compressed file is damaged, its ending names a compression that it does not have, or a zip
            archive does not hold exactly one file.
    """
    found, ending = compression_of(path), Path(path).suffix.lower()
    if ending in _STARTS and not found and Path(path).is_file() and Path(path).stat().st_size:
        raise DataError(f"{path}: the file is not compressed, although its name ends in {ending}. Rename the file.")
    try:
        if found == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_member(path, archive)) as member:
                yield cast("io.BufferedReader", member)
        else:
            with _OPEN.get(found, open)(path, "rb") as file:
                yield file
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and (not found or error.errno is not None):  # not of the decompressor
            raise
        raise DataError(f"{path}: the compressed file is damaged: {one_line(error)}. Copy the file again.") from error


def has_several_files(path: str | Path) -> bool:
    """Return whether a file is a zip archive of several data files.

    Raises:
        DataError: if the file is a damaged archive, or a workbook.
    """
    if compression_of(path) != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = _members(path, archive)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: the compressed file is damaged: {one_line(error)}. Copy the file again.") from error
    return len(names) > 1


def _members(path: str | Path, archive: zipfile.ZipFile) -> list[str]:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if _WORKBOOK in names:
        raise DataError(f"{path}: the file is a workbook of an office program. Save its table as a CSV file.")
    return names


def _only_member(path: str | Path, archive: zipfile.ZipFile) -> str:
    names = _members(path, archive)
    if len(names) != 1:
        raise DataError(f"{path}: expected an archive of one file. Found {len(names)} files. Unpack the archive.")
    return names[0]


def undecodable(path: str | Path, encoding: str, *, has_option: bool = True) -> DataError:
    """Return an error with the line and byte of a file that cannot be decoded.

    Args:
        path: the file.
        encoding: the encoding with which the file was read.
        has_option: whether the dataset may give the `encoding` of the file.
    """
    with opened(path) as file:
        head = file.read(4)
    mark = next((name for start, name in _BYTE_ORDER_MARKS.items() if head.startswith(start)), None)
    remedy = " Save the file as UTF-8."
    if has_option:
        remedy = f" Set `encoding`, such as `encoding: {mark or 'cp1252'}`."
    line, byte, reason = _first_flaw(path, encoding)
    name = "UTF-8" if codecs.lookup(encoding).name.startswith(UTF_8) else encoding
    place = "" if line is None else f", line {line}"
    return DataError(f"{path}{place}: not {name}: {reason} at byte {byte}{' of the line' if place else ''}.{remedy}")


def _first_flaw(path: str | Path, encoding: str) -> tuple[int | None, int, str]:
    """Return (line, byte of the line, reason) for the first bytes that cannot be decoded.

    In encodings with several bytes per character, a line cannot be found without decoding, so the line is None.
    """
    if codecs.lookup(encoding).name.startswith("utf-16") or codecs.lookup(encoding).name.startswith("utf-32"):
        try:
            with opened(path) as file:
                file.read().decode(encoding)
        except UnicodeDecodeError as error:
            return None, error.start, error.reason
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return number, error.start, error.reason
    return None, 0, "unexpected bytes"


def check_utf8(path: str | Path) -> None:
    """Check that a file is UTF-8.

    Raises:
        DataError: if the file is not UTF-8 or a damaged compressed file; the message names the line and byte.
    """
    decoder = codecs.getincrementaldecoder(UTF_8)()
    with opened(path) as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise undecodable(path, UTF_8) from error
