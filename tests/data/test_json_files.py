from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_datasets import TEXT, load, write

from mtl_nlp.data.json_files import flaw_in_json
from mtl_nlp.errors import DataError

LABELS = {"topic": "y"}
ROWS = [{"text": "one", "y": "a"}, {"text": "two", "y": "b"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def texts_of(folder: Path, content: str | bytes, **more: Any) -> list[str]:
    (folder / "d.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    inputs, labels = more.pop("inputs", TEXT), more.pop("labels", LABELS)
    return load(folder, inputs, labels, path="d.json", **more).splits["train"]["text"][:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"d\.json: the file is empty\.$"),
        ("\ufeff", r"d\.json: the file is empty\.$"),
        (LINES + '{"text": \n' + LINES, r"d\.json, line 3: not valid JSON: Expecting value"),
        (LINES[:-9], r"d\.json, line 2: not valid JSON: Unterminated string"),
        (json.dumps(ROWS)[:-9], r"d\.json, line 1: not valid JSON: Unterminated string .*of the line\)"),
        ("text,y\none,a\n", r"d\.json, line 1: not valid JSON: .*'text,y'"),
        ("{'text': 'one'}\n", r"d\.json, line 1: not valid JSON: Expecting property name"),
        ('1\n"a"\n', r"d\.json, line 1: expected an object with a value per column, found '1'"),
        (LINES + '{"text": "a", "text": "b"}\n', r"d\.json, line 3: the key 'text' is given twice"),
        (
            json.dumps(ROWS)[:-1] + ', {"text": "a", "text": "b"}]',
            r"d\.json: the key 'text' is given twice in \{'text': 'b'",
        ),
        (LINES + '{"text": "a \\ud83d", "y": "a"}\n', r"d\.json, line 3: an escape such as .* half of a character"),
        (LINES + '{"text": ' + "[" * 3000 + "]" * 3000 + "}\n", r"d\.json: a value has too many levels"),
        (LINES.encode() + b'{"text": "caf\xe9", "y": "a"}\n', r"d\.json, line 3: not UTF-8: .*`encoding: cp1252`"),
        (LINES.encode("utf-16"), r"d\.json, line 1: not UTF-8: .*`encoding: utf-16`"),
        (
            json.dumps({"data": ROWS}),
            r"no column 'text'\. The rows are in the list 'data' of an object\. Set `field: data`",
        ),
        (json.dumps({"data": ROWS}, indent=1), r"Set `field: data`"),
        (json.dumps({"x": ROWS[0]}), r"^datasets\.d: no column 'text'\. Did you mean 'x\.text', inside of 'x'\?"),
    ],
)
def test_flaw_is_named_with_file_and_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        texts_of(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (LINES, {}),
        (f"\ufeff{LINES}".replace("\n", "\n\n"), {}),
        (LINES.replace("\n", "\r"), {}),
        (json.dumps(ROWS), {}),
        (json.dumps(ROWS, indent=1), {}),
        (json.dumps({"data": ROWS, "version": 1}, indent=1), {"field": "data"}),
        (LINES.encode("utf-16"), {"encoding": "utf-16"}),
        (
            "".join(json.dumps({"x": row}) + "\n" for row in ROWS),
            {"inputs": {"text": "x.text"}, "labels": {"topic": "x.y"}},
        ),
    ],
)
def test_file_that_can_be_read_is_read(tmp_path, content, more):
    assert texts_of(tmp_path, content, **more) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ('{"data": [{"y": "a", "y": "b"}]}', "data", r"d\.json: the key 'y' is given twice in \{'y': 'b'"),
        (json.dumps({"data": ROWS}), "dta", r"d\.json: no field 'dta'\. Did you mean 'data'"),
        (json.dumps(ROWS), "data", r"d\.json: expected an object with the field 'data', found a list"),
        (LINES, "data", r"d\.json, line 2: not valid JSON: Extra data .*Leave out `field`"),
    ],
)
def test_wrong_field_is_explained(tmp_path, content, field, message):
    with pytest.raises(DataError, match=message):
        texts_of(tmp_path, content, field=field)


def test_bytes_that_are_no_text_are_read_as_the_dataset_says(tmp_path):
    (tmp_path / "d.json").write_bytes(b'{"rows": [{"text": "caf\xe9", "y": "a"}, {"text": "caf\xe9", "y": "a"}]}')
    options = {"path": "d.json", "field": "rows", "encoding_errors": "replace"}
    assert load(tmp_path, TEXT, {"topic": "y"}, **options).splits["train"]["text"][:] == ["caf\ufffd"] * 2
    assert flaw_in_json([str(tmp_path / "d.json")], options) is None


def test_first_file_with_other_columns_or_types_is_named(tmp_path):
    for name, row in (
        ("a.jsonl", {"text": "one", "y": 1}),
        ("b.jsonl", {"text": "two", "y": "x"}),
        ("c.jsonl", {"text": "two", "z": 1}),
    ):
        write(tmp_path / name, row)
    for other, message in (
        ("b", r"/b\.jsonl: column 'y' has texts, and .*/a\.jsonl has numbers\. Give"),
        ("c", r"/c\.jsonl: the first file of the split has no column 'z'"),
    ):
        with pytest.raises(DataError, match=message):
            load(tmp_path, TEXT, LABELS, data_files=["a.jsonl", f"{other}.jsonl"])
    loaded = load(tmp_path, TEXT, LABELS, data_files={"train": "a.jsonl", "validation": "b.jsonl"})
    assert loaded.splits["validation"]["label:topic"][:] == ["x"]
    assert flaw_in_json([str(tmp_path / "a.jsonl")], {}) is None


def test_flaw_of_a_stream_is_named(tmp_path):
    write(tmp_path / "a.jsonl", *ROWS, "{")
    write(tmp_path / "b.jsonl", *ROWS)
    for files in ({"train": "a.jsonl"}, {"train": "b.jsonl", "validation": "a.jsonl"}):
        with pytest.raises(DataError, match=r"/a\.jsonl, line 3: not valid JSON"):
            load(tmp_path, TEXT, LABELS, data_files=files, streaming=True)
