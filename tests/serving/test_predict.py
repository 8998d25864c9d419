from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from mtl_nlp.data.conll import read_conll
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.build import build_model
from mtl_nlp.run.prepare import prepare
from mtl_nlp.serving.predict import answer_file, count_inputs, read_inputs

HARD_TEXTS = [
    "",
    "   ",
    "👩‍👩‍👧 loves 🇫🇷!",
    "e\u0301te\u0301 cafe\u0301",
    "zero\u200bwidth \u200b \ufeff joiner\u200d",
    "مرحبا بالعالم שלום",
    "x" * 5000,
    "Ada lives in Paris. " * 40,
]


@pytest.fixture
def answer(quick_recipe):
    """Return the pipeline of an untrained model."""
    run = prepare(Recipe.from_dict(quick_recipe))
    return pipeline("multitask", model=build_model(run), tokenizer=run.tokenizer)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def answers(answer: Any, source: Path, input_format: str, output_format: str = "jsonl", batch_size: int = 3) -> str:
    target = io.StringIO()
    count = answer_file(answer, source, input_format, target, output_format, batch_size)
    written = target.getvalue()
    assert count == (written.count("\n") if output_format == "jsonl" else written.count("\n\n"))
    return written


def test_every_line_is_answered_in_order_even_if_empty(answer, tmp_path):
    texts = ["Ada lives in Paris.", "", "Hi", " "]
    rows = [json.loads(line) for line in answers(answer, write(tmp_path / "a.txt", *texts), "text").splitlines()]
    assert [row["text"] for row in rows] == texts
    assert all(row["answers"].keys() == {"pos", "ner", "topic"} for row in rows)
    assert [len(row["answers"]["pos"]) for row in rows] == [5, 0, 1, 0]
    assert all(len(row["answers"]["topic"]) == 1 for row in rows)


def test_answers_of_a_file_equal_those_of_the_pipeline(answer, tmp_path):
    texts = ["Ada lives in Paris.", "The quick brown fox " * 20]
    rows = [json.loads(line) for line in answers(answer, write(tmp_path / "a.txt", *texts), "text").splitlines()]
    for row, text in zip(rows, texts, strict=True):
        expected = answer(text)
        assert [entry["label"] for entry in row["answers"]["pos"]] == [entry["label"] for entry in expected["pos"]]
        assert row["answers"]["topic"][0]["score"] == pytest.approx(expected["topic"][0]["score"], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("output_format", ["jsonl", "conll"])
def test_any_text_is_answered_word_by_word(answer, tmp_path, output_format, batch_size):
    source = write(tmp_path / "a.txt", *HARD_TEXTS)
    written = answers(answer, source, "text", output_format, batch_size)
    if output_format == "jsonl":
        rows = [json.loads(line) for line in written.splitlines()]
        assert [row["text"] for row in rows] == HARD_TEXTS
        for row in rows:
            for entry in row["answers"]["pos"]:
                assert row["text"][entry["start"] : entry["end"]] == entry["word"]
            joined = "".join(entry["word"] for entry in row["answers"]["pos"])
            assert joined == "".join(row["text"].split())


def test_json_lines_take_texts_pairs_and_tokens(answer, tmp_path):
    inputs = [
        {"text": "Ada", "id": 7},
        {"text": "Ada", "text_pair": "a fox"},
        {"tokens": ["New York", "", "fox"], "text": "the words count"},
        {"tokens": []},
        {"text": "x", "text_pair": None},
        {"text": "a whole 😀 pair"},
    ]
    lines = [json.dumps(item) for item in inputs]
    rows = [json.loads(line) for line in answers(answer, write(tmp_path / "a.jsonl", *lines), "jsonl").splitlines()]
    assert [{key: row[key] for key in row if key != "answers"} for row in rows] == inputs
    assert [entry["word"] for entry in rows[2]["answers"]["pos"]] == ["New York", "", "fox"]
    assert rows[3]["answers"]["pos"] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"a\.jsonl, line 2: not JSON"),
        ("", r"line 2: not JSON"),
        (r'{"text": "half a \ud83d pair"}', r"line 2: half of a surrogate pair"),
        ('["Ada"]', r'line 2: expected an object with "text" or "tokens"\. Found \["Ada"\]'),
        ('"Ada"', "line 2: expected an object"),
        ('{"txt": "Ada"}', "line 2: expected an object"),
        ('{"text": 3}', r'line 2: "text" should be a string\. Found {"text": 3}'),
        ('{"text": null}', 'line 2: "text" should be a string'),
        ('{"text": "a", "text_pair": ["b"]}', 'line 2: "text_pair" should be a string'),
        ('{"tokens": "Ada"}', r'line 2: "tokens" should be a list of strings\. Found {"tokens": "Ada"}'),
        ('{"tokens": 5}', 'line 2: "tokens" should be a list of strings'),
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
        list(read_inputs(source, "jsonl"))


@pytest.mark.parametrize("input_format", ["text", "jsonl", "conll", "conllu"])
def test_a_line_that_is_not_utf8_is_named(tmp_path, input_format):
    (tmp_path / "a").write_bytes(b"\n" + "café\n".encode("latin-1"))
    inputs = read_inputs(tmp_path / "a", "text" if input_format == "jsonl" else input_format)
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(inputs)


def test_column_files_are_written_with_one_column_per_task(answer, tmp_path):
    source = write(tmp_path / "a.conll", "-DOCSTART- -X-", "# id = 1", "Ada B-PER", "runs O", "", "#tag O", "Hi")
    written = answers(answer, source, "conll", "conll")
    (tmp_path / "out.conll").write_text(written, encoding="utf-8")
    first, second = read_conll(tmp_path / "out.conll", ["tokens", "pos", "ner"])
    assert (first["tokens"], second["tokens"]) == (["Ada", "runs"], ["#tag", "Hi"])
    assert first["text"] == "Ada runs"
    assert first["topic"] in answer.model.tasks["topic"].labels
    assert set(first["pos"] + second["pos"]) <= set(answer.model.tasks["pos"].labels)
    spans = [json.loads(line) for line in answers(answer, source, "conll").splitlines()]
    for row, sentence in zip(spans, (first, second), strict=True):
        assert sum(tag.startswith("B-") for tag in sentence["ner"]) == len(row["answers"]["ner"])


def test_treebanks_are_read_by_their_words(answer, tmp_path):
    lines = [f"{number}\t{form}" + "\t_" * 8 for number, form in [("1-2", "don't"), ("1", "do"), ("2", "n't")]]
    rows = answers(answer, write(tmp_path / "a.conllu", "# sent_id = 1", *lines), "conllu")
    assert json.loads(rows)["tokens"] == ["do", "n't"]


@pytest.mark.parametrize(
    ("input_format", "content", "count"),
    [("text", "a\n\nb", 3), ("jsonl", "{}\n{}\n", 2), ("conll", "# x = y\na O\nb O\n\n\nc O\n", 2), ("text", "", 0)],
)
def test_inputs_are_counted_for_the_progress_bar(tmp_path, input_format, content, count):
    (tmp_path / "a").write_text(content)
    assert count_inputs(tmp_path / "a", input_format) == count


@pytest.mark.parametrize("input_format", ["text", "jsonl", "conll", "conllu"])
def test_an_empty_file_has_no_answers(answer, tmp_path, input_format):
    assert answers(answer, write(tmp_path / "a"), input_format) == ""


def test_byte_order_mark_and_dos_line_ends_are_removed(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfAda\r\nruns\r\n")
    assert list(read_inputs(tmp_path / "a", "text")) == ["Ada", "runs"]


def test_every_line_is_valid_json_even_if_the_input_is_not(answer, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "Ada", "id": NaN, "others": [Infinity, 1.5]}\n', encoding="utf-8")
    target = io.StringIO()
    assert answer_file(answer, tmp_path / "in.jsonl", "jsonl", target, "jsonl", 1) == 1
    found = json.loads(target.getvalue(), parse_constant=pytest.fail)
    assert (found["id"], found["others"]) == (None, [None, 1.5])
