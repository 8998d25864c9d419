"""Counts over a complete column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value

from mtl_nlp.data.scans import count_missing, count_names, values_of
from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.modeling.text_kinds_multitask import ClassesPerText
from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord

POS = task_from_dict({"name": "t", "type": "token-classification"}).kind
TOPIC = task_from_dict({"name": "t", "type": "text-classification"}).kind
TAGS = task_from_dict({"name": "t", "type": "multi-label-classification"}).kind
SCORE = task_from_dict({"name": "t", "type": "regression"}).kind

CASES = [
    (POS, List(Value("string")), [["b", None, "a"], None, [], ["a", "c"], ["b"]] * 3),
    (TOPIC, Value("string"), ["b", None, "a", "b", "c"] * 3),
    (TAGS, List(Value("string")), [["b"], None, [], ["a", "b"]] * 3),
    (SCORE, Value("float64"), [1.0, None, 1.0, 2.5] * 3),
    (TOPIC, Value("string"), [None, None]),
    (POS, List(Value("string")), [None]),
]


def counted(labels: Iterable[Any], kind: Any) -> Counter[str]:
    return Counter(name for label in labels if label is not None for name in kind.names_in(label))


@pytest.mark.parametrize(("kind", "feature", "labels"), CASES)
@pytest.mark.parametrize("order", [None, [2, 0, 1, 1], []])
def test_counts_are_those_of_a_loop_over_the_rows(kind, feature, labels, order):
    rows = Dataset.from_dict({"x": labels}, features=Features({"x": feature}))
    if order is not None:
        order = [number % len(labels) for number in order]
        rows, labels = rows.select(order), [labels[number] for number in order]
    for column in (rows["x"], labels):
        assert list(count_names(column, kind).items()) == list(counted(labels, kind).items())
        assert count_missing(column) == sum(label is None for label in labels)
        assert list(values_of(column)) == labels


def test_a_kind_with_own_names_is_asked_for_each_label():
    class Firsts(ClassPerWord):
        def names_in(self, label: Sequence[str | None]) -> Iterable[str]:
            return label[:1]

    assert ClassesPerText.names_are_entries
    assert not Firsts.names_are_entries
    rows = Dataset.from_dict({"x": [["a", "b"], ["a", "c"], None]})
    assert count_names(rows["x"], Firsts("t")) == {"a": 2}
