"""The details of an evaluation."""

from __future__ import annotations

import pytest

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.evaluation.details import describe_details, details_of_labels

TOPIC = TextClassification(name="topic", labels=["news", "sport"]).kind
POS = TokenClassification(name="pos", labels=["A", "B"]).kind
NER = TokenClassification(name="ner", labels=["O", "B-X", "I-X", "B-Y", "I-Y"], scheme="iob2").kind
MOODS = MultiLabelClassification(name="moods", labels=["x", "y"]).kind


def test_classes_have_scores_and_a_confusion():
    found = details_of_labels(TOPIC, ["news", "news", "sport"], ["news", "sport", "sport"])
    assert found["labels"]["news"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert found["confusion"] == {"labels": ["news", "sport"], "counts": [[1, 0], [1, 1]]}
    words = details_of_labels(POS, [["A", "B"], ["A"]], [["A", "A"], ["A"]])
    assert words["confusion"]["counts"] == [[2, 1], [0, 0]]
    assert words["labels"]["B"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_spans_and_sets_have_scores_of_each_label():
    found = details_of_labels(NER, [["B-X", "O"], ["O", "B-Y"]], [["B-X", "O"], ["B-Y", "I-Y"]])
    assert found == {
        "labels": {
            "X": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
            "Y": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        }
    }
    assert details_of_labels(NER, [["O"]], [["O"]]) == {"labels": {}}
    sets = details_of_labels(MOODS, [["x"], ["x", "y"]], [["x"], ["y"]])
    assert sets["labels"]["x"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert details_of_labels(MOODS, [[]], [[]]) == {"labels": {}}


def test_details_are_tables_and_a_large_confusion_is_left_out():
    text = describe_details({"topic": details_of_labels(TOPIC, ["news", "news"], ["news", "sport"])})
    assert "topic  precision  recall  f1      support" in text
    assert "topic: gold \\ predicted  news  sport" in text
    many = [str(number) for number in range(30)]
    assert "gold" not in describe_details({"topic": details_of_labels(TOPIC, many, many)})
    assert not Regression(name="score").kind.has_label_space
