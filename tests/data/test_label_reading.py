from __future__ import annotations

from typing import Any

import pytest
from datasets import ClassLabel, List, Value

from mtl_nlp.data.label_reading import LabelReader, order_names, sort_names
from mtl_nlp.modeling.tasks_multitask import (
    MultiLabelClassification,
    Regression,
    Task,
    TextClassification,
    TokenClassification,
)
from mtl_nlp.modeling.words_multitask import split_words
from mtl_nlp.recipe.label_columns import LabelSource

NAN = float("nan")
NAMES = ["O", "B-PER", "I-PER"]
POS, TOPIC, TAGS = (kind(name="t") for kind in (TokenClassification, TextClassification, MultiLabelClassification))
NER = TokenClassification(name="t", scheme="iob2")


def reader(task: Task, given: Any = "y", **rest: Any) -> LabelReader:
    return LabelReader(task, LabelSource.of(given), **rest)


def named(task: Task, names: Any) -> Task:
    return type(task)(**{**vars_of(task), "names": names})


def vars_of(task: Task) -> dict[str, Any]:
    return {"name": task.name, **{key: value for key, value in task.options.items() if key != "type"}}


@pytest.mark.parametrize(
    ("task", "value", "label"),
    [
        (TOPIC, 1.0, 1),
        (TOPIC, NAN, None),
        (TAGS, NAN, None),
        (Regression(name="t"), NAN, None),
        (TOPIC, -100, None),
        (TOPIC, -1, -1),
        (TOPIC, "7", "7"),
        (TOPIC, True, True),
        (TOPIC, 2.5, 2.5),
        (named(TOPIC, ["no", "yes"]), 1.0, "yes"),
        (named(TOPIC, {1: "yes", 0: "no"}), False, "no"),
        (named(TOPIC, ["no", "yes"]), "1", "yes"),
        (named(TOPIC, ["no", "yes"]), "yes", "yes"),
        (named(TOPIC, ["no", "yes"]), " 1", "yes"),
        (named(TOPIC, ["no", "yes"]), "1.0", "yes"),
        (named(TOPIC, ["1.5", "yes"]), "1.5", "1.5"),
        (named(POS, NAMES), [1, 2, 0, None, -100], ["B-PER", "I-PER", "O", None, None]),
        (named(POS, NAMES), [1.0, NAN], ["B-PER", None]),
        (POS, ["N", None], ["N", None]),
        (POS, [None, None], None),
        (POS, [], []),
        (named(TAGS, ["a", "b", "c"]), [0, 1, 1], ["b", "c"]),
        (named(TAGS, ["a", "b", "c"]), [True, False, False], ["a"]),
        (named(TAGS, ["a", "b", "c"]), [0, 2], ["a", "c"]),
        (named(TAGS, ["a", "b", "c"]), ["a"], ["a"]),
        (TOPIC, 2.0**53, 2.0**53),
        (Regression(name="t"), 1.0, 1.0),
        (Regression(name="t"), " 2.5", 2.5),
        (Regression(name="t"), "2,5", "2,5"),
    ],
)
def test_numbers_become_names_and_missing_labels_become_none(task, value, label):
    assert reader(task).read([value]) == label


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        (named(TOPIC, ["no", "yes"]), 2, r"found 2\. Name it under `tasks\.t\.names`, which has 0, 1"),
        (named(TOPIC, ["no", "yes"]), "0.5", r"expected a whole number or a name of .*; found '0\.5'"),
        (named(POS, NAMES), [-1], "expected a number with a name; found -1"),
        (named(TAGS, ["a", "b", "c"]), [0, 1, 0, 1], "one number for each of the 3 names"),
        (TOPIC, "", "not empty"),
        (POS, ["N", ""], "not empty"),
    ],
)
def test_number_without_a_name_and_empty_name_are_refused(task, value, message):
    with pytest.raises(ValueError, match=message):
        reader(task).read([value])


def test_class_number_without_a_name_in_its_column_is_refused():
    with pytest.raises(ValueError, match="expected a class number below 1; found 1"):
        reader(TOPIC, class_names=["a"]).read([1])


@pytest.mark.parametrize(
    ("value", "label"), [("a; b;", ["a", "b"]), ("", []), (None, None), (NAN, None), (3.0, ["3"]), ("a", ["a"])]
)
def test_delimited_text_is_a_set_of_names(value, label):
    delimited = {"column": "y", "delimiter": ";"}
    assert reader(TAGS, delimited).read([value]) == label
    in_csv = reader(TAGS, delimited, empty_cells=True)
    assert in_csv.read([value]) == (label or [])
    assert in_csv.counts == ({"empty_cells": 1} if label is None else {})


def test_zero_one_columns_are_a_set_of_their_names():
    columns = reader(TAGS, ["toxic", "insult"])
    rows = [(0, 1), (1.0, True), ("true", "0"), (" 1.0", "0.0"), (None, NAN)]
    assert [columns.read(row) for row in rows] == [["insult"], ["toxic", "insult"], ["toxic"], ["toxic"], None]
    assert columns.known_names({}) == ["toxic", "insult"]
    for row in ((0, 2), (None, 1), ("x", 0), ([], 0)):
        with pytest.raises(ValueError, match="expected 0, 1, true or false in column"):
            columns.read(row)


def test_names_are_known_from_class_labels_and_from_the_names_of_numbers():
    numbers = {"y": List(Value("int64"))}
    assert reader(NER).known_names(numbers) is None
    assert reader(named(NER, NAMES)).known_names(numbers) == NAMES
    assert reader(named(NER, NAMES)).known_names({"y": List(Value("string"))}) is None
    renamed = reader(NER, label_map={"PERSON": "PER", "LOC": "O"})
    names = ["O", "B-PERSON", "I-PERSON", "B-LOC"]
    assert renamed.known_names({"y": List(ClassLabel(names=names))}) == ["O", "B-PER", "I-PER"]
    assert renamed.unmet(renamed.met) == []
    assert renamed.unmet(["PERSON"]) == ["LOC"]


def test_label_map_renames_names_and_null_means_no_label():
    maps = {"PERSON": "PER", "B-X": None, "a": "b", "c": None, "1": "one"}
    assert reader(NER, label_map=maps).read([["B-PERSON", "I-PERSON", "B-X", "O"]]) == ["B-PER", "I-PER", None, "O"]
    assert reader(TAGS, label_map=maps).read([["a", "c", "d"]]) == ["b", "d"]
    assert [reader(TOPIC, label_map=maps).read([value]) for value in ("a", "c", "d", 1)] == ["b", None, "d", "one"]
    flags = reader(TOPIC, label_map={"True": "spam", "False": "ham"})
    assert [flags.read([value]) for value in (True, False, None)] == ["spam", "ham", None]
    assert flags.unmet(flags.met) == []


@pytest.mark.parametrize(
    ("scheme", "tags", "renamed"),
    [
        ("iob1", ["I-ORG", "I-LOC", "O"], ["I-ENT", "B-ENT", "O"]),
        ("iob1", ["I-ORG", "I-X", "I-LOC"], ["I-ENT", None, "I-ENT"]),
        ("iob2", ["B-ORG", "B-LOC", "I-LOC"], ["B-ENT", "B-ENT", "I-ENT"]),
        ("iob2", ["B-ORG", "I-LOC", None], ["B-ENT", "B-ENT", None]),
        ("iob2", ["I-ORG", "I-ORG", "O"], ["I-ENT", "I-ENT", "O"]),  # illegal before and after, and counted as such
        ("bioes", ["B-ORG", "E-LOC", "S-PER"], ["S-ENT", "S-ENT", "S-PER"]),
    ],
)
def test_neighbouring_spans_stay_apart_when_label_map_gives_both_the_same_name(scheme, tags, renamed):
    task = TokenClassification(name="t", scheme=scheme)
    assert reader(task, label_map={"ORG": "ENT", "LOC": "ENT", "X": None}).read([tags]) == renamed


def test_character_spans_become_tags_of_the_words():
    text = "Ada lives in New York"
    found = reader(NER, {"column": "y", "alignment_mode": "expand"}, label_map={"PERSON": "PER", "X": None, "D": "O"})
    spans = [[0, 3, "PERSON"], [4, 9, "X"], [10, 12, "D"], [14, 21, "LOC"], [17, 21, "LOC"]]
    assert found.read([spans], text, split_words(text)) == ["B-PER", None, "O", "B-LOC", "I-LOC"]
    assert found.counts == {"moved": 1, "overlapping": 1, "unlabelled_words": 1, "misaligned": 0}
    assert found.read([[]], text, split_words(text)) == ["O"] * 5
    assert found.read([None], text, split_words(text)) is None


def test_label_of_a_character_span_has_no_prefix():
    text = "Ada lives here"
    found = reader(NER, label_map={"NAME": "PER", "LAST-NAME": "PER"})
    spans = [[0, 3, "FIRST-NAME"], [4, 9, "LAST-NAME"]]
    assert found.read([spans], text, split_words(text)) == ["B-FIRST-NAME", "B-PER", "O"]
    assert found.unmet(found.met) == ["NAME"]


def test_names_that_the_task_declares_keep_their_order():
    task = named(TOPIC, ["pos", "neg", "mixed"])
    assert order_names(["neg", "pos"], task) == ["pos", "neg", "mixed"]
    assert order_names(["x", "neg", "pos", "a"], task) == ["pos", "neg", "a", "x"]
    assert order_names([], task) == []
    assert order_names(["b", "a"], TOPIC) == ["a", "b"]


def test_whole_numbers_sort_by_their_values():
    assert sort_names(["10", "2", "-1", "0"]) == ["-1", "0", "2", "10"]
    assert sort_names(["10", "2", "b"]) == ["10", "2", "b"]
