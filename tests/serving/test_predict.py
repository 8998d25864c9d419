from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from mtl_nlp.data.conll import read_conll
from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.build import build_model
from mtl_nlp.run.prepare import prepare
from mtl_nlp.serving.inputs import Source
from mtl_nlp.serving.predict import answer_file, as_cell, task_names

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
    count = answer_file(answer, Source(source, input_format), target, output_format, batch_size)
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
        assert row["answers"]["topic"][0]["score"] == pytest.approx(expected["topic"][0]["score"], abs=1e-4)


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
        {"tokens": [""]},
        {"text": "x", "text_pair": None},
        {"text": "a whole 😀 pair"},
    ]
    lines = [json.dumps(item) for item in inputs]
    rows = [json.loads(line) for line in answers(answer, write(tmp_path / "a.jsonl", *lines), "jsonl").splitlines()]
    assert [{key: row[key] for key in row if key != "answers"} for row in rows] == inputs
    assert [entry["word"] for entry in rows[2]["answers"]["pos"]] == ["New York", "", "fox"]


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


@pytest.mark.parametrize("input_format", ["text", "jsonl", "conll", "conllu"])
def test_an_empty_file_has_no_answers(answer, tmp_path, input_format):
    assert answers(answer, write(tmp_path / "a"), input_format) == ""


def test_every_line_is_valid_json_even_if_the_input_is_not(answer, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "Ada", "id": NaN, "others": [Infinity, 1.5]}\n', encoding="utf-8")
    target = io.StringIO()
    assert answer_file(answer, Source(tmp_path / "in.jsonl", "jsonl"), target, "jsonl", 1) == 1
    found = json.loads(target.getvalue(), parse_constant=pytest.fail)
    assert (found["id"], found["others"]) == (None, [None, 1.5])


def test_answers_before_and_after_a_bad_line_are_written_and_it_is_refused_unless_reported(answer, tmp_path):
    source = Source(write(tmp_path / "a.jsonl", '{"text": "Ada"}', "{", '{"text": "Max"}'), "jsonl")
    target, flaws = io.StringIO(), []
    assert answer_file(answer, source, target, batch_size=2, report=flaws.append) == 2
    assert [json.loads(line)["text"] for line in target.getvalue().splitlines()] == ["Ada", "Max"]
    assert [str(flaw).partition(": ")[0] for flaw in flaws] == [f"{tmp_path / 'a.jsonl'}, line 2"]
    target = io.StringIO()
    with pytest.raises(DataError, match="line 2: not JSON"):
        answer_file(answer, source, target, batch_size=2)
    assert [json.loads(line)["text"] for line in target.getvalue().splitlines()] == ["Ada"]


def test_answers_before_the_end_of_a_damaged_file_are_written(answer, tmp_path):
    content = gzip.compress("".join(f"text {number * 7919}\n" for number in range(3000)).encode(), mtime=0)
    (tmp_path / "a.txt.gz").write_bytes(content[: len(content) // 20])
    target = io.StringIO()
    with pytest.raises(DataError, match=r"a\.txt\.gz"):
        answer_file(answer, Source(tmp_path / "a.txt.gz"), target, batch_size=32, report=[].append, tasks=["topic"])
    texts = [json.loads(line)["text"] for line in target.getvalue().splitlines()]
    assert texts and texts == [f"text {number * 7919}" for number in range(len(texts))]


def test_an_answer_that_is_not_finite_and_a_text_that_the_pipeline_refuses_are_reported(answer, tmp_path, monkeypatch):
    def preprocess(inputs, **options):
        if {"text": "refused"} in inputs:
            raise ValueError("the word has no sub-words")
        return type(answer).preprocess(answer, inputs, **options)

    monkeypatch.setattr(answer, "preprocess", preprocess)
    lines = [json.dumps({"text": text}) for text in ("Ada", "refused", "Max")]
    source, target, flaws = Source(write(tmp_path / "a.jsonl", *lines), "jsonl"), io.StringIO(), []
    assert answer_file(answer, source, target, batch_size=2, report=flaws.append) == 2
    assert [str(flaw).partition(", ")[2] for flaw in flaws] == ["line 2: the word has no sub-words"]
    answer.model.heads[-1].stock.classifier.bias.data[0] = float("nan")
    flaws.clear()
    for output_format in ("jsonl", "conll"):
        target = io.StringIO()
        assert answer_file(answer, source, target, output_format, 2, flaws.append, tasks=["topic"]) == 0
        assert target.getvalue() == ""
    assert str(flaws[0]).endswith("line 1: the answer of topic is not a finite number.")


CASES = [
    ["Lena", "\n", "slept"],
    ["a\tb", "c"],
    [" ", " "],
    ["", ""],
    ["\u200b", "x"],
    ["New York", "is"],
    ["line\u2028sep", "y"],
    ["# topic = zzz", "w"],
    ["-DOCSTART-", "w"],
    ["x" * 5000],
]

EMPTY = {"text": ""}


@pytest.mark.parametrize("tasks", [["pos", "topic"], ["topic"]])
def test_columns_can_be_read_back_whatever_the_words_hold(answer, tmp_path, tasks):
    source = write(tmp_path / "a.jsonl", *(json.dumps(row) for row in [EMPTY, *({"tokens": words} for words in CASES)]))
    with open(tmp_path / "out.conll", "w", encoding="utf-8") as target:
        assert answer_file(answer, Source(source, "jsonl"), target, "conll", 4, tasks=tasks) == 1 + len(CASES)
    columns = ["tokens", *tasks[:-1]]
    assert (tmp_path / "out.conll").read_text().startswith(f"# global.columns = {' '.join(columns)}\n")
    empty, *found = read_conll(tmp_path / "out.conll", columns)
    assert empty["tokens"] == ["_"]
    assert [len(sentence["tokens"]) for sentence in found] == [len(words) for words in CASES]
    assert all(sentence["topic"] in answer.model.tasks["topic"].labels for sentence in found)
    assert found[5]["tokens"][0] == ("New York" if len(tasks) == 2 else "New\u00a0York")
    assert [as_cell(word) for word in ("a\tb", "", "ok")] == ["a\u00a0b", "_", "ok"]


def test_scores_have_four_decimals(answer, tmp_path):
    source = write(tmp_path / "a.txt", "Ada lives in Paris.")
    target = io.StringIO()
    answer_file(answer, Source(source), target, tasks=["pos", "topic"], top_k=2)
    entries = json.loads(target.getvalue())["answers"]
    assert len(entries["topic"]) == 2
    scores = re.findall(r'"score": ([\d.e-]+)', target.getvalue())
    assert scores
    assert all(len(score) <= 6 for score in scores)


def test_tasks_are_separated_by_commas_or_spaces():
    valid = ["pos", "ner", "a, b"]
    assert task_names(["pos,ner", "a, b"], valid) == ["pos", "ner", "a, b"]
    with pytest.raises(CommandError, match=r"^--tasks nre: no such task\. Did you mean 'ner'\?"):
        task_names(["pos", "nre"], valid)
