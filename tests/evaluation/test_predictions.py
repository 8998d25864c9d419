"""The file of predictions: its lines, and the refusal of files with different lines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp import Regression, TextClassification, TokenClassification
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import EncodedDataset, encode_dataset
from mtl_nlp.errors import DataError, ModelError
from mtl_nlp.evaluation.evaluator import Answer
from mtl_nlp.evaluation.predictions import (
    Prediction,
    predictions_of,
    read_predictions,
    training_words,
    write_predictions,
)

TASKS = {
    task.name: task
    for task in (
        TokenClassification(name="pos", labels=["A", "B"]),
        TextClassification(name="topic", labels=["news", "sport"]),
        Regression(name="score"),
    )
}
WORDS = {"tokens": [["Ada", "sleeps"], ["Ada"]], "pos": [["A", "B"], None], "topic": ["news", "sport"]}
PAIRS = {"text": ["a dog\tbarks", "x"], "text_pair": ["it  is", "dog"], "score": [1.5, None], "topic": [None, "news"]}


@pytest.fixture(scope="module")
def datasets(tokenizers) -> dict[str, EncodedDataset]:
    """A dataset with words and one with pairs of texts, in which some labels are missing."""

    def encoded(name: str, data: dict[str, list]) -> EncodedDataset:
        inputs = {key: key for key in data if key in {"tokens", "text", "text_pair"}}
        labels = {key: key for key in data if key in TASKS}
        rows = canonical_rows(Dataset.from_dict(data), name, inputs=inputs, labels=labels, tasks=TASKS)
        return encode_dataset(name, rows, TASKS, tokenizers["wordpiece"], reads_words=True)

    return {"words": encoded("words/test", WORDS), "pairs": encoded("pairs/test", PAIRS)}


ANSWERS: dict[str, Any] = {
    "words": {
        "pos": {0: Answer(["A", "A"], [0.9, 0.6])},
        "topic": {0: Answer("news", 0.8), 1: Answer("news", 0.7)},
    },
    "pairs": {"score": {0: Answer(1.25)}, "topic": {1: Answer("sport", 0.6)}},
}


def line(**changes: Any) -> dict[str, Any]:
    """Return a line about two words; a value of `...` removes its key."""
    values = {
        "task": "pos",
        "dataset": "ewt",
        "split": "test",
        "row": 3,
        "tokens": ["Ada", "sleeps"],
        "gold": ["A", "B"],
        "prediction": ["A", "A"],
        "score": [0.9, 0.5],
        **changes,
    }
    return {key: value for key, value in values.items() if value is not ...}


def written(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def refused(path: Path, *lines: dict[str, Any] | str) -> str:
    with pytest.raises(DataError) as raised:
        read_predictions(written(path, *lines))
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message.removeprefix(f"{path}, ")


def test_each_labelled_text_of_a_task_is_one_prediction_in_the_order_of_rows(datasets):
    found = list(predictions_of(ANSWERS, datasets, "test"))
    assert [(each.dataset, each.row, each.task) for each in found] == [
        ("words", 0, "pos"),
        ("words", 0, "topic"),
        ("words", 1, "topic"),
        ("pairs", 0, "score"),
        ("pairs", 1, "topic"),
    ]
    assert found[0] == Prediction(
        "pos", "words", "test", 0, ["A", "B"], ["A", "A"], [0.9, 0.6], tokens=["Ada", "sleeps"]
    )
    assert found[3] == Prediction("score", "pairs", "test", 0, 1.5, 1.25, None, text="a dog\tbarks", text_pair="it  is")


def test_words_without_a_label_are_left_out_of_every_list(tokenizers, tmp_path):
    data = {"tokens": [["Ada", "sleeps", "on"]], "pos": [["A", None, "B"]]}
    rows = canonical_rows(Dataset.from_dict(data), "d", inputs={"tokens": "tokens"}, labels={"pos": "pos"}, tasks=TASKS)
    encoded = {"d": encode_dataset("d/test", rows, TASKS, tokenizers["wordpiece"], reads_words=True)}
    answers = {"d": {"pos": {0: Answer(["A", "A", "B"], [0.9, 0.6, 0.8])}}}
    (found,) = predictions_of(answers, encoded, "test", {"pos": {"Ada"}})
    assert (found.tokens, found.gold, found.prediction) == (["Ada", "on"], ["A", "B"], ["A", "B"])
    assert (found.score, found.seen) == ([0.9, 0.8], [True, False])
    write_predictions(tmp_path / "p.jsonl", [found])
    assert read_predictions(tmp_path / "p.jsonl") == {"pos": [found]}


def test_the_words_of_a_task_are_those_of_its_labelled_training_rows(datasets):
    known = training_words(datasets.values(), ["pos", "topic", "score"])
    assert known == {
        "pos": {"Ada", "sleeps"},
        "topic": {"Ada", "sleeps", "x", "dog"},
        "score": {"a", "dog", "barks", "it", "is"},
    }
    assert training_words(datasets.values(), ["pos"]) == {"pos": {"Ada", "sleeps"}}


def test_words_are_seen_if_the_training_rows_of_the_task_have_them(datasets):
    known = {"pos": {"Ada"}, "score": {"dog", "it"}}
    found = [each.seen for each in predictions_of(ANSWERS, datasets, "test", known)]
    assert found == [[True, False], None, None, [False, True, False, True, False], None]


def test_numbers_of_numpy_become_plain_numbers(datasets, tmp_path):
    answers = {"pairs": {"score": {0: Answer(np.float32(1.25))}, "topic": {1: Answer("news", np.float32(0.5))}}}
    found = list(predictions_of(answers, {"pairs": datasets["pairs"]}, "test"))
    assert [(type(each.prediction), type(each.score)) for each in found] == [(float, type(None)), (str, float)]
    write_predictions(tmp_path / "p.jsonl", found)


def test_written_predictions_are_read_unchanged(datasets, tmp_path):
    path = tmp_path / "predictions.jsonl"
    predictions = list(predictions_of(ANSWERS, datasets, "test", {"pos": {"Ada"}}))
    write_predictions(path, predictions)
    by_task = read_predictions(path)
    assert [*by_task] == ["pos", "topic", "score"]
    assert sorted((p for ps in by_task.values() for p in ps), key=predictions.index) == predictions
    assert path.read_text().splitlines()[0] == json.dumps(
        {
            "task": "pos",
            "dataset": "words",
            "split": "test",
            "row": 0,
            "tokens": ["Ada", "sleeps"],
            "gold": ["A", "B"],
            "prediction": ["A", "A"],
            "score": [0.9, 0.6],
            "seen": [True, False],
        }
    )
    assert not list(tmp_path.glob(".*"))


def test_texts_of_megabytes_and_of_all_characters_are_kept(tmp_path):
    texts = ["x" * 2_000_000, "a\nb\r\u2028\x85\x0b<script>", "é🎈\0"]
    predictions = [
        Prediction("topic", "d", "test", row, "news", "news", 1.0, text=text) for row, text in enumerate(texts)
    ]
    write_predictions(tmp_path / "p.jsonl", predictions)
    assert read_predictions(tmp_path / "p.jsonl") == {"topic": predictions}
    damaged = dataclasses.asdict(predictions[0]) | {"gold": None, "tokens": None}
    assert refused(tmp_path / "q.jsonl", damaged).startswith("line 1: `gold` should be a label")
    assert "Found 'xxx" in refused(tmp_path / "q.jsonl", json.dumps("x" * 2_000_000))


def test_empty_lines_and_unknown_keys_are_ignored(tmp_path):
    path = written(tmp_path / "p.jsonl", "", line(note="mine", seen=[True, False]), "", line(row=4, score=None))
    assert [(each.row, each.score) for each in read_predictions(path)["pos"]] == [(3, [0.9, 0.5]), (4, None)]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": ...}, "`task` is missing"),
        ({"gold": ...}, "`gold` is missing"),
        ({"dataset": 3}, "`dataset` should be a string. Found 3"),
        ({"row": -1}, "`row` should be an index from 0. Found -1"),
        ({"row": 1.5}, "`row` should be an index from 0. Found 1.5"),
        ({"row": True}, "`row` should be an index from 0. Found True"),
        ({"gold": None}, "`gold` should be a label, a finite number, or a list of these. Found None"),
        ({"prediction": float("nan")}, "`prediction` should be a label, a finite number"),
        ({"gold": ["A", float("inf")]}, "`gold` should be a label, a finite number"),
        ({"score": [0.5, 1.5]}, "`score` should be a probability, a list of probabilities"),
        ({"score": [0.5, float("nan")]}, "`score` should be a probability"),
        ({"tokens": "Ada sleeps"}, "`tokens` should be a list of words. Found 'Ada sleeps'"),
        ({"seen": [1, 0]}, "`seen` should be a list of true and false. Found 1"),
        ({"tokens": ...}, "either `tokens` or `text` should be given"),
        ({"text": "Ada sleeps"}, "either `tokens` or `text` should be given"),
        ({"text_pair": "x"}, "`text_pair` needs `text`"),
        ({"prediction": "A", "score": None}, "`gold` and `prediction` should have one form. Found a list and a label"),
        ({"prediction": ["A"]}, "should have one entry per word. Found 2, 2, 1, 2"),
        ({"score": [0.5]}, "should have one entry per word. Found 2, 2, 2, 1"),
        ({"seen": [True]}, "`seen` should have one entry per word. Found 1 for 2 words"),
    ],
)
def test_a_line_of_a_wrong_form_is_named_with_its_rule(tmp_path, changes, problem):
    message = refused(tmp_path / "p.jsonl", line(row=1), line(**changes))
    assert message.startswith("line 2: ")
    assert problem in message


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (line(), "a line above has task 'pos', dataset 'ewt' and row 3 too"),
        (line(row=4, split="validation"), "all lines should be of one split. Found 'test' and 'validation'"),
        (line(row=4, gold="A", prediction="A", score=0.5), "all labels of task 'pos' should have one form"),
        (line(row=4, score={"A": 0.9, "B": 0.2}), "all labels of task 'pos' should have one form. Found dict, list"),
    ],
)
def test_lines_that_contradict_each_other_are_refused(tmp_path, other, problem):
    message = refused(tmp_path / "p.jsonl", line(), other)
    assert message.startswith("line 2: ")
    assert problem in message


@pytest.mark.parametrize("text", ["{", "x", '{"task": ', "\ufeff{}", "[" * 100_000])
def test_a_file_of_a_different_kind_is_refused(tmp_path, text):
    assert refused(tmp_path / "p.jsonl", text).startswith("line 1: should be JSON. Found ")


def test_an_empty_missing_or_binary_file_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    assert refused(path, "", "") == f"{path}: should have a prediction per line. The file is empty."
    path.write_bytes(b"\xff\xfe\x00{\x00")
    with pytest.raises(DataError, match="line 1: should be JSON"):
        read_predictions(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=f"{missing}: cannot be read"):
            read_predictions(missing)


def test_numbers_that_are_not_defined_are_null_and_named_when_read(tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(path, [Prediction("score", "d", "test", 0, 1.0, float("nan"), text="x")])
    assert '"prediction": null' in path.read_text()
    with pytest.raises(DataError, match="line 1: `prediction` should be"):
        read_predictions(path)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "p.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(ModelError, match="symbolic link"):
        write_predictions(tmp_path / "p.jsonl", [])


def test_a_message_about_a_long_value_is_short(tmp_path):
    message = refused(tmp_path / "p.jsonl", line(), line(row=4, split="v" * 5000))
    assert message.startswith("line 2: all lines should be of one split. Found 'test' and 'vvv")
    assert len(message) < 400
