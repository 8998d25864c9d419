from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest

from mtl_nlp.data.opening import check_utf8, compression_of, has_several_files, opened, undecodable
from mtl_nlp.errors import DataError


def archive(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_compressed_files_are_read_whatever_their_names_say(tmp_path):
    for name, content in {
        "a.txt": b"text",
        "b.gz": gzip.compress(b"text", mtime=0),
        "c.csv": bz2.compress(b"text"),
        "d.txt.xz": lzma.compress(b"text"),
        "e.zip": archive(a="text"),
        "f.bz2": bz2.compress(b""),
        "g.csv": b"BZh9 is a text",
    }.items():
        with opened(write(tmp_path, name, content)) as file:
            assert file.read() == {"f.bz2": b"", "g.csv": content}.get(name, b"text")
    assert [compression_of(path) for path in sorted(tmp_path.iterdir())] == [
        "",
        ".gz",
        ".bz2",
        ".xz",
        ".zip",
        ".bz2",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.gz",
            gzip.compress(b"text" * 99, mtime=0)[:-9],
            r"a\.gz: the compressed file is damaged: .*Copy the file again\.$",
        ),
        ("a.xz", lzma.compress(b"text" * 99)[:-9], "a.xz: the compressed file is damaged"),
        ("a.bz2", bz2.compress(b"text" * 99)[:20] + b"x" * 40, r"a\.bz2: the compressed file is damaged"),
        ("a.gz", b"text", r"a\.gz: the file is not compressed, although its name ends in \.gz"),
        ("a.zip", archive(a="1", b="2"), r"a\.zip: expected an archive of one file\. Found 2 files\."),
        ("a.zip", archive(a="1")[:-9], r"a\.zip: the compressed file is damaged"),
        ("a.csv", archive(**{"[Content_Types].xml": "<Types/>"}), r"a\.csv: the file is a workbook .*as a CSV file"),
    ],
    ids=["gz", "xz", "bz2", "text", "two files", "zip", "workbook"],
)
def test_damaged_file_is_named(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=message), opened(path) as file:
        file.read()
    if ("damaged" in message and name.endswith(".zip")) or "workbook" in message:
        with pytest.raises(DataError, match=message):
            has_several_files(path)


def test_archives_of_several_files_are_known(tmp_path):
    assert has_several_files(write(tmp_path, "a.zip", archive(a="1", b="2")))
    assert not has_several_files(write(tmp_path, "b.zip", archive(a="1")))
    assert not has_several_files(write(tmp_path, "c.txt", b"PK"))


def test_bytes_that_are_not_utf8_are_named_with_line_and_byte(tmp_path):
    check_utf8(write(tmp_path, "good", "é".encode() * 9))
    path = write(tmp_path, "bad", "é\ncafé\n".encode() + "caf\xe9 x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"bad, line 3: not UTF-8: .* at byte 3 of the line\. Set .*encoding: cp1252"):
        check_utf8(path)
    assert "Save the file as UTF-8." in str(undecodable(path, "utf-8", has_option=False))
    assert "`encoding: utf-16`" in str(undecodable(write(tmp_path, "wide", "text".encode("utf-16")), "utf-8"))
    assert str(undecodable(write(tmp_path, "odd", b"a\0b"), "utf-16-le")).startswith(f"{tmp_path}/odd: not utf-16-le")
