from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Features, List, Value

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.labels import LabelSpaces, label_names, unite_label_spaces
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import task_from_dict


def unite(task: dict[str, Any], *datasets: tuple[list[Any], list[str] | None]) -> LabelSpaces:
    """Return the label space of task `t` over datasets `d0`, `d1`, …, given by training labels and ClassLabel names."""
    t = task_from_dict({"name": "t", **task})
    kind = Value("float64") if not t.kind.has_label_space else Value("string")
    if t.kind.level == "token" or t.kind.problem_type == "multi_label_classification":
        kind = List(kind)
    loaded = {}
    for number, (labels, names) in enumerate(datasets):
        rows = Dataset.from_dict({LABEL_PREFIX + "t": labels}, features=Features({LABEL_PREFIX + "t": kind}))
        loaded[f"d{number}"] = LoadedDataset(DatasetDict(train=rows), {"t": names})
    return unite_label_spaces(loaded, {"t": t})


POS, NER = {"type": "token-classification"}, {"type": "token-classification", "scheme": "iob2"}
TOPIC, TAGS, SCORE = ({"type": t} for t in ("text-classification", "multi-label-classification", "regression"))


def test_labels_of_one_dataset_are_sorted():
    spaces = unite(POS, ([["b", "a"], None, ["c", "a"]], None))
    assert spaces.tasks["t"].labels == ("a", "b", "c")
    assert spaces.notes == []


def test_nearly_equal_names_get_a_note():
    note = (
        "Task t: the labels {} differ only in blanks, case or the form of a number, and are different classes; to "
        "unite them, rename them in `label_map`"
    )
    assert unite(TOPIC, (["a", "b", "a ", "A", "c d", "c  d"], None)).notes == [
        note.format("'A' and 'a' and 'a '; 'c  d' and 'c d'")
    ]
    assert unite(TOPIC, (["01", "1", "1.0", "2"], None)).notes == [note.format("'01' and '1' and '1.0'")]
    assert unite(NER, ([["B-PER", "B-per"]], None)).notes[0].startswith("Task t: the labels 'B-PER' and 'B-per'")
    assert len(unite(TOPIC, ([letter + case for letter in "abcde" for case in ("", " ")], None)).notes[0]) < 200
    assert unite(TOPIC, (["a", "b", "1", "2", "1.5", "1234567", "1234568"], None)).notes == []
    assert unite(TOPIC, (["1234567", "1234567.0"], None)).notes != []


def test_whole_numbers_are_in_the_order_of_their_values():
    spaces = unite(TOPIC, ([str(number) for number in range(11)], None), (["2", "10", "1"], None))
    assert spaces.tasks["t"].labels == tuple(str(number) for number in range(11))
    assert spaces.notes == ["Task t: d1 has no 0, 3, 4, 5, 6, 7, 8, 9"]


@pytest.mark.parametrize(("task", "labels"), [(TOPIC, ["b", None, "a"]), (TAGS, [["b"], [], ["a", "b"]])])
def test_every_task_type_gives_its_label_names(task, labels):
    assert unite(task, (labels, None)).tasks["t"].labels == ("a", "b")


def test_class_label_keeps_its_order_and_unused_names():
    assert unite(TOPIC, (["a"], ["z", "a", "m"])).tasks["t"].labels == ("z", "a", "m")


def test_label_spaces_are_united_in_recipe_order_and_differences_reported():
    spaces = unite(TOPIC, (["c", "a"], None), (["a", "b"], None))
    assert spaces.tasks["t"].labels == ("a", "c", "b")
    assert spaces.notes == ["Task t: d0 has no b", "Task t: d1 has no c"]


def test_span_labels_are_completed_by_their_scheme():
    assert set(unite(NER, ([["O", "B-PER"]], None)).tasks["t"].labels) == {"O", "B-PER", "I-PER"}


def test_regression_has_no_label_space():
    spaces = unite(SCORE, ([1.0, None], None))
    assert (spaces.tasks["t"].labels, spaces.tasks["t"].num_labels) == ((), 1)


@pytest.mark.parametrize(
    ("task", "first", "second"),
    [(TOPIC, ["a"], ["b"]), (NER, [["O", "B-PER"]], [["O", "B-person"]])],
)
def test_datasets_of_a_task_must_share_a_label(task, first, second):
    with pytest.raises(
        DataError,
        match=r"Task 't': each dataset should share a label with the other datasets .* Found d0: .*; d1: .*\. Rename",
    ):
        unite(task, (first, None), (second, None))


def test_dataset_without_spans_fits_any_other():
    assert len(unite(NER, ([["O", "B-PER"]], None), ([["O"]], None)).tasks["t"].labels) == 3


@pytest.mark.parametrize(("task", "labels"), [(TOPIC, [None, None]), (SCORE, [None]), (POS, [None])])
def test_task_without_training_labels_is_named(task, labels):
    with pytest.raises(DataError, match=r"Task 't': no training row of d0 has a label"):
        unite(task, (labels, None))


@pytest.mark.parametrize(("task", "labels"), [(POS, [[]]), (TAGS, [[], []])])
def test_empty_lists_count_as_missing_labels(task, labels):
    with pytest.raises(DataError, match=r"Task 't': no training row of d0 has a label"):
        unite(task, (labels, None))


def test_label_names_ignore_missing_labels():
    task = task_from_dict({"name": "t", **POS})
    assert label_names(Dataset.from_dict({LABEL_PREFIX + "t": [None, ["b", "a"]]}), task) == ["a", "b"]
