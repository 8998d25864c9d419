from __future__ import annotations

import pytest
from runs_of_predictions import run_of
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.transfer.labels import confusion, label_scores

CLASSES = TextClassification(name="t", labels=["a", "b", "c"])
GOLD, GUESS, SECOND = [*"aaabbc"], [*"aabbba"], [*"aaabbb"]


def test_scores_of_classes_are_sklearns_as_means_over_runs():
    found = label_scores([run_of(GUESS, GOLD), run_of(SECOND, GOLD)], CLASSES)
    expected = [
        precision_recall_fscore_support(GOLD, guess, labels=[*"abc"], zero_division=0) for guess in (GUESS, SECOND)
    ]
    assert [score.label for score in found] == [*"abc"]
    for place, score in enumerate(found):
        for column, value in enumerate((score.precision, score.recall, score.f1)):
            assert value == pytest.approx((expected[0][column][place] + expected[1][column][place]) / 2)
    assert [score.support for score in found] == [3, 2, 1]
    assert [score.predicted for score in found] == [3, 3, 0]


def test_spans_are_counted_by_class_and_words_and_sets_by_label():
    spans = TokenClassification(name="t", labels=["O", "B-X", "I-X", "B-Y", "I-Y"], scheme="iob2")
    run = run_of([["B-X", "I-X", "B-Y"]], [["B-X", "I-X", "B-X"]], tokens=[["u", "v", "w"]])
    assert [(s.label, s.precision, s.recall, s.support) for s in label_scores([run], spans)] == [
        ("X", 1.0, 0.5, 2),
        ("Y", 0.0, 0.0, 0),
    ]
    words = TokenClassification(name="t", labels=["N", "V"])
    run = run_of([["N", "N"]], [["N", "V"]], tokens=[["u", "v"]])
    assert [(s.label, s.precision, s.recall) for s in label_scores([run], words)] == [("N", 0.5, 1.0), ("V", 0.0, 0.0)]
    sets = MultiLabelClassification(name="t", labels=["x", "y"])
    run = run_of([["x", "y"], []], [["x"], ["y"]])
    assert [(s.label, s.precision, s.recall) for s in label_scores([run], sets)] == [("x", 1.0, 1.0), ("y", 0.0, 0.0)]
    assert confusion([run], sets) is None


def test_numbers_have_no_labels():
    run = run_of([1.0], [2.0])
    assert label_scores([run], Regression(name="t")) == []
    assert confusion([run], Regression(name="t")) is None


def test_a_confusion_matrix_is_sklearns():
    found = confusion([run_of(GUESS, GOLD), run_of(GUESS, GOLD)], CLASSES)
    assert found.labels == [*"abc"]
    assert found.counts == confusion_matrix(GOLD, GUESS, labels=[*"abc"]).tolist()


def test_a_confusion_matrix_of_spans_counts_tags():
    spans = TokenClassification(name="t", labels=["O", "B-X", "I-X"], scheme="iob2")
    found = confusion([run_of([["O", "O", "O"]], [["B-X", "I-X", "O"]], tokens=[["u", "v", "w"]])], spans)
    assert found.to_dict() == {"labels": ["O", "B-X", "I-X"], "counts": [[1, 0, 0], [1, 0, 0], [1, 0, 0]], "folded": 0}


def test_rare_labels_are_folded():
    names = [f"label {number:02}" for number in range(40)]
    gold = names + names[:25] * 2
    found = confusion([run_of(gold, gold)], TextClassification(name="t", labels=names))
    assert len(found.labels) == 31
    assert (found.labels[0], found.labels[-1], found.folded) == ("label 00", "other", 10)
    assert found.counts[30][30] == 10
    assert sum(map(sum, found.counts)) == len(gold)
