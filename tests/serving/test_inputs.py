from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mtl_nlp.errors import DataError
from mtl_nlp.serving.inputs import Source


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"a\.jsonl, line 2: not JSON"),
        ("{", r"line 2: not JSON"),
        (r'{"text": "half a \ud83d pair"}', r"line 2: half of a surrogate pair"),
        ('["Ada"]', r'line 2: expected an object with "text" or "tokens"\. Found \["Ada"\]'),
        ('"Ada"', "line 2: expected an object"),
        ('{"txt": "Ada"}', "line 2: expected an object"),
        ('{"text": 3}', r'line 2: "text" should be a string\. Found {"text": 3}'),
        ('{"text": null}', r'line 2: no text in "text"\.'),
        ('{"text": "a", "text_pair": ["b"]}', 'line 2: "text_pair" should be a string'),
        ('{"tokens": "Ada"}', r'line 2: "tokens" should be a list of strings\. Found {"tokens": "Ada"}'),
        ('{"tokens": 5}', 'line 2: "tokens" should be a list of strings'),
        ('{"tokens": []}', r'line 2: no words in "tokens"\.'),
        ('{"tokens": ["a", null]}', 'line 2: "tokens" should be a list of strings'),
        ('{"tokens": [["a"]]}', 'line 2: "tokens" should be a list of strings'),
        ('{"text_pair": "a"}', "line 2: expected an object"),
        ("{}", "line 2: expected an object"),
        pytest.param('{"text": "a", "id": ' + "[" * 99_999, "line 2: cannot be read as JSON: maximum rec", id="deep"),
        pytest.param('{"text": "a", "id": ' + "9" * 5000 + "}", "line 2: cannot be read as JSON: Exceeds", id="digits"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, message):
    source = write(tmp_path / "a.jsonl", '{"text": "Ada"}', line)
    with pytest.raises(DataError, match=message):
        list(Source(source, "jsonl"))


@pytest.mark.parametrize("input_format", ["text", "jsonl", "conll", "conllu"])
def test_a_line_that_is_not_utf8_is_named(tmp_path, input_format):
    (tmp_path / "a").write_bytes(b"\n" + "café\n".encode("latin-1"))
    inputs = Source(tmp_path / "a", "text" if input_format == "jsonl" else input_format)
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(inputs)


@pytest.mark.parametrize(
    ("input_format", "content", "count"),
    [
        ("text", "a\n\nb", 3),
        ("jsonl", "{}\n{}\n", 2),
        ("conll", "# x = y\na O\nb O\n\n\nc O\n", 2),
        ("text", "", 0),
        ("csv", 'a,b\n"x\ny",1\nz,2\n', 2),
    ],
)
def test_inputs_are_counted_for_the_progress_bar(tmp_path, input_format, content, count):
    (tmp_path / "a").write_text(content)
    assert Source(tmp_path / "a", input_format).count() == count


def test_byte_order_mark_and_dos_line_ends_are_removed(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfAda\r\nruns\r\n")
    assert [item.question for item in Source(tmp_path / "a", "text")] == ["Ada", "runs"]


def test_a_table_is_read_by_its_columns(tmp_path):
    source = write(tmp_path / "a.csv", "id,body,reply,text", '1,"Hi, ""Ada""\nand Max",Hello,x', "", "2,Ho,NA,y")
    first, second = Source(source, "csv", "body", "reply")
    assert first.question == {"text": 'Hi, "Ada"\nand Max', "text_pair": "Hello"}
    assert first.content == {"id": "1", "body": 'Hi, "Ada"\nand Max', "reply": "Hello", "text": "x"}
    assert second.question == {"text": "Ho", "text_pair": "NA"}
    assert [item.question for item in Source(source, "csv")] == [{"text": "x"}, {"text": "y"}]
    alone = write(tmp_path / "a.tsv", "sentence", 'one "word', "two")
    assert [item.question["text"] for item in Source(write(tmp_path / "b.csv", "sentence", "one", "two"), "csv")] == [
        "one",
        "two",
    ]
    assert Source(alone, "tsv").count() is not None


def test_an_empty_cell_has_no_answer_and_is_named(tmp_path):
    source = write(tmp_path / "a.csv", "id,body,reply", "1,Hi,Ho", "2,,Ho", "3,  ,Ho", '4,"\n",x', "5,Hi,", "6,Ha,Ho")
    items = list(Source(source, "csv", "body", "reply").items())
    assert [str(item).removeprefix(f"{source}, ") for item in items if isinstance(item, DataError)] == [
        "line 3: no text in column 'body'.",
        "line 4: no text in column 'body'.",
        "lines 5 to 6: no text in column 'body'.",
        "line 7: no text in column 'reply'.",
    ]
    assert [item.content["id"] for item in items if not isinstance(item, DataError)] == ["1", "6"]
    alone = Source(source, "csv", "body")
    assert sum(isinstance(item, DataError) for item in alone.items()) == 3


@pytest.mark.parametrize(
    ("line", "likely"),
    [
        ("id,body", "csv"),
        ('"Ticket ID",body,created_at', "csv"),
        ("id\tthe body", "tsv"),
        ('{"text": "Ada"}', "jsonl"),
        ("Hello, world", None),
        ("Ada, who lives in Paris,said nothing and went home", None),
        ("{curly}", None),
        ("[1]", None),
        ("1,2", None),
        ("", None),
    ],
)
def test_a_first_line_that_is_no_text_gets_a_note_unless_the_format_was_given(tmp_path, line, likely):
    source = Source(write(tmp_path / "a.txt", line, "Ada"), is_guess=True)
    assert len(list(source)) == 2
    assert len(source.notes) == (likely is not None)
    assert likely is None or source.notes[0].endswith(f"If it is, add --input-format {likely}")
    given = Source(tmp_path / "a.txt")
    assert len(list(given)) == 2 and not given.notes


def test_a_table_with_other_separators_is_refused(tmp_path):
    for header, remedy in (
        ("id;body", "Add --sep ';'"),
        ("id|body", r"Add --sep '\|'"),
        ("id\tbody", "Add --input-f.* tsv"),
    ):
        source = write(tmp_path / "a.csv", header, header)
        with pytest.raises(DataError, match=rf"a\.csv, line 1: expected commas between the columns, .*\. {remedy}\."):
            list(Source(source, "csv"))
        with pytest.raises(DataError, match=rf"line 1: expected commas between the columns, .*\. {remedy}\."):
            list(Source(source, "csv", "body"))
        assert len(list(Source(source, "csv", header))) == 1
        (item,) = Source(source, "csv", "body", separator=header[2])
        assert item.question == {"text": "body"}


def test_a_table_with_a_repeated_column_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv, line 1: several columns are called 'text'"):
        list(Source(write(tmp_path / "a.csv", "text,text", "a,b"), "csv"))
    assert len(list(Source(write(tmp_path / "a.csv", "text,,", "a,,"), "csv"))) == 1


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_json_is_read_object_by_object(tmp_path, indent):
    rows = [{"text": "Ada", "id": 1}, {"txt": "x"}, {"tokens": ["Hi"]}]
    path = write(tmp_path / "a.json", json.dumps(rows, indent=indent))
    first, flaw, last = Source(path, "jsonl").items()
    assert (first.question, first.content, last.question) == ({"text": "Ada"}, rows[0], {"tokens": ["Hi"]})
    assert str(flaw).startswith(f'{path}, object 2: expected an object with "text" or "tokens". Found {{"txt"')
    with pytest.raises(DataError, match=r"a\.json: not JSON: .* in line \d"):
        list(Source(write(path, "[", '{"text": "Ada"}', "{"), "jsonl"))


@pytest.mark.parametrize(
    ("columns", "line", "message"),
    [
        (("txt", None), "1,a", r"a\.csv: no column 'txt' \(--text-column\)\. Did you mean 'text'\?"),
        (("text", "second"), "1,a", r"no column 'second' \(--text-pair-column\)\. Valid: id, text\."),
        (("text", None), "1", r"a\.csv, line 2: expected 2 columns \(id, text\), found 1\."),
    ],
)
def test_a_table_without_the_column_is_refused(tmp_path, columns, line, message):
    with pytest.raises(DataError, match=message):
        list(Source(write(tmp_path / "a.csv", "id,text", line), "csv", *columns))


def test_a_header_that_is_not_utf8_is_refused_and_no_row_is_lost(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,catégorie\nAda,1\nMax,2\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv, line 1: not UTF-8"):
        list(Source(tmp_path / "a.csv", "csv").items())


def test_rows_that_a_stray_quote_has_swallowed_get_a_note(tmp_path):
    rows = ['"one,1', "two,2", "three,3", 'four",4', "five,5"]
    source = Source(write(tmp_path / "a.csv", "text,id", *rows), "csv")
    assert len(list(source)) == 2
    assert (
        len(source.notes) == 1
        and "1 row spans several lines between quotes (the first in lines 2 to 5)" in source.notes[0]
    )
    calm = Source(write(tmp_path / "b.csv", "text,id", '"one', 'two",1'), "csv")
    assert len(list(calm)) == 1 and not calm.notes


def test_json_lines_have_named_columns_too(tmp_path):
    source = write(tmp_path / "a.jsonl", '{"premise": "a", "hypothesis": "b", "tokens": ["x"]}')
    (item,) = Source(source, "jsonl", "premise", "hypothesis")
    assert item.question == {"text": "a", "text_pair": "b"}
    with pytest.raises(DataError, match=r'line 1: "sentence" should be a string'):
        list(Source(source, "jsonl", "sentence"))


MIXED = {
    "text": (["Ada", b"caf\xe9", "", "Max"], ["Ada", "", "Max"], ["line 2: not UTF-8"]),
    "jsonl": (
        ['{"text": "Ada"}', "{", "", b'{"text": "caf\xe9"}', '{"text": NaN}', '{"text": "Max"}'],
        ["Ada", "Max"],
        ["line 2: not JSON", "line 4: not UTF-8", 'line 5: "text" should be a string'],
    ),
    "csv": (
        ["text,id", "Ada,1", "a,b,c", "", b'"caf\xe9', 'x",2', "a\rb,3", "Max,4", '"open,5', "lost,6"],
        ["Ada", "Max"],
        [
            "line 3: expected 2 columns (text, id), found 3",
            "line 5: not UTF-8",
            "line 7: cannot be read: new-line character",
            "lines 9 to 10: a quotation mark is not closed, so that 2 lines have no answer",
        ],
    ),
    "tsv": (
        ["text\tid", "Ada\t1", "Max", "Max\t3"],
        ["Ada", "Max"],
        ["line 3: expected 2 columns (text, id), found 1"],
    ),
    "conll": (["Ada\tO", "", b"caf\xe9\tO", "x\tO", "", "Max"], [["Ada"], ["Max"]], ["line 3: not UTF-8"]),
    "conllu": (
        ["1\tAda" + "\t_" * 8, "", "x\tAda" + "\t_" * 8, "", "1\tAda", "", "1\tMax" + "\t_" * 8],
        [["Ada"], ["Max"]],
        ["line 3: expected 10 tab-separated columns", "line 5: expected 10 tab-separated columns"],
    ),
}


@pytest.mark.parametrize("input_format", MIXED)
def test_good_inputs_around_bad_lines_are_read_and_every_bad_line_is_named(tmp_path, input_format):
    lines, good, bad = MIXED[input_format]
    path = tmp_path / "a"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    source = Source(path, input_format)
    items = list(source.items())
    questions = [item.question for item in items if not isinstance(item, DataError)]
    assert [q if isinstance(q, str) else q.get("text", q.get("tokens")) for q in questions] == good
    flaws = [str(item).removeprefix(f"{path}, ") for item in items if isinstance(item, DataError)]
    assert len(flaws) == len(bad)
    assert all(flaw.startswith(start) for flaw, start in zip(flaws, bad, strict=True)), flaws
    assert source.count() == len(items) + (input_format == "jsonl")  # the blank line


def test_a_compressed_file_that_is_truncated_is_read_up_to_the_damage(tmp_path):
    content = gzip.compress("".join(f"text {number * 7919}\n" for number in range(20_000)).encode(), mtime=0)
    (tmp_path / "a.txt.gz").write_bytes(content[: len(content) // 2])
    items = Source(tmp_path / "a.txt.gz").items()
    assert next(items).question == "text 0"
    with pytest.raises(DataError, match=r"a\.txt\.gz"):
        list(items)
    assert Source(tmp_path / "a.txt.gz").count() is None
