from __future__ import annotations

import numpy as np
import pytest
from runs_of_predictions import run_of

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.transfer.slices import by_length, by_seen, calibration

CLASSES = TextClassification(name="t", labels=["a", "b"])
WORDS = TokenClassification(name="t", labels=["N", "V"])


def test_scores_by_quarters_of_the_texts_by_length():
    texts = ["w " * length for length in (1, 2, 3, 4, 5, 6, 7, 8)]
    run = run_of([*"aabbaaab"], ["a"] * 8, text=texts)
    assert [(part.name, part.units, part.value) for part in by_length([run, run], CLASSES)] == [
        ("1 to 2 words", 2, 1.0),
        ("3 to 4 words", 2, 0.0),
        ("5 to 6 words", 2, 1.0),
        ("7 to 8 words", 2, 0.5),
    ]


def test_texts_of_one_length_are_one_part_and_no_words_are_no_error():
    assert [part.name for part in by_length([run_of([*"ab"], [*"ab"])], CLASSES)] == ["2 words"]
    assert [part.name for part in by_length([run_of(["a"], ["a"], text=[""])], CLASSES)] == ["0 words"]


def test_numbers_have_errors_by_length():
    run = run_of([1.0, 2.0], [1.5, 4.0], text=["one", "one two"])
    first, second = by_length([run, run_of([1.0, 3.0], [1.5, 4.0], text=["one", "one two"])], Regression(name="t"))
    assert (first.score, first.value, second.value) == ("mean absolute error", 0.5, 1.5)


def test_words_are_scored_by_whether_training_has_them():
    tokens = [["u", "v", "w"], ["x"]]
    seen = [[True, False, True], [False]]
    run = run_of([["N", "N", "V"], ["N"]], [["N", "V", "N"], ["N"]], tokens=tokens, seen=seen)
    assert [(part.name, part.units, part.unit, part.value) for part in by_seen([run], WORDS)] == [
        ("words seen in training", 2, "words", 0.5),
        ("unseen words", 2, "words", 0.5),
    ]


def test_texts_are_scored_in_halves_by_their_share_of_unseen_words():
    seen = [[True, True], [True, True], [False, True], [False, False]]
    run = run_of([*"aaba"], ["a"] * 4, seen=seen)
    assert [(part.name, part.units, part.value) for part in by_seen([run], CLASSES)] == [
        ("at most 25% unseen words", 2, 1.0),
        ("more than 25% unseen words", 2, 0.5),
    ]


def test_without_training_rows_there_is_nothing_about_seen_words():
    assert by_seen([run_of([["N"]], [["N"]], tokens=[["u"]])], WORDS) == []


def test_the_calibration_error_is_guos():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.5, 1.0, size=500)
    correct = rng.random(500) < score**2
    run = run_of(np.where(correct, "a", "b").tolist(), ["a"] * 500, score=score.tolist())
    expected = 0.0
    for index in range(15):
        part = (score > index / 15) & (score <= (index + 1) / 15)
        if part.any():
            expected += part.mean() * abs(correct[part].mean() - score[part].mean())
    found = calibration([run, run])
    assert found.error == pytest.approx(expected)
    assert sum(part.units for part in found.bins) == pytest.approx(500)
    assert all(part.low < part.confidence <= part.high for part in found.bins)
    assert found.to_dict()["bins"][0]["low"] == pytest.approx(7 / 15)


def test_words_and_decisions_about_classes_have_probabilities_and_numbers_have_none():
    words = run_of([["N", "N"]], [["N", "V"]], tokens=[["u", "v"]], score=[[1.0, 0.0]])
    assert calibration([words]).error == pytest.approx(0.0)
    sets = run_of([["x"]], [["x", "y"]], score=[{"x": 0.9, "y": 0.2}])
    (low, high) = calibration([sets]).bins
    assert (low.confidence, low.accuracy) == (pytest.approx(0.8), 0.0)
    assert (high.confidence, high.accuracy) == (pytest.approx(0.9), 1.0)
    assert calibration([run_of([1.0], [2.0])]) is None
    assert by_length([sets], MultiLabelClassification(name="t", labels=["x", "y"]))[0].score == "micro_f1"


def test_probabilities_at_the_ends_are_in_the_outer_bins():
    found = calibration([run_of([*"ab"], ["a", "a"], score=[1.0, 0.0])])
    assert [(part.low, part.high) for part in found.bins] == [
        (0.0, pytest.approx(1 / 15)),
        (pytest.approx(14 / 15), 1.0),
    ]
