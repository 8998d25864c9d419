"""Verdicts on the conflict of two tasks."""

from __future__ import annotations

import pytest
from insight_folder import conflict
from scipy import stats

from mtl_nlp.balancing.verdicts import cosine_text, describe_conflict, verdict_of


@pytest.mark.parametrize(
    ("cosines", "word"),
    [
        ([-0.3, -0.2, -0.25, -0.3, -0.2], "conflict"),
        ([0.3, 0.2, 0.25, 0.3, 0.2], "agreement"),
        ([-0.3, 0.2, -0.25, 0.3, -0.01], "no clear conflict"),
        ([-0.3, None, -0.25, -0.3, -0.2], "too few measurements"),
        ([], "too few measurements"),
    ],
)
def test_the_interval_of_the_mean_decides(cosines, word):
    assert verdict_of(cosines).word == word


def test_the_interval_is_that_of_students_t_test():
    values = [-0.3, -0.1, 0.05, -0.2, 0.0, -0.15]
    found = verdict_of([*values, None])
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0.0).confidence_interval(0.95)))
    assert (found.mean, found.measured) == (pytest.approx(sum(values) / 6), 6)


def test_each_pair_has_a_sentence_with_the_strongest_conflict_first():
    pos_topic, *_, last = describe_conflict(conflict(["pos", "ner", "topic"]))
    assert pos_topic == "pos and topic: too few measurements, mean cosine of gradients −0.45, 4 measurements"
    assert "(95 % interval " in last or "too few" in last
    assert describe_conflict(conflict(["pos", "ner"], measurements=0)) == [
        "pos and ner: too few measurements, 0 measurements"
    ]


def test_a_cosine_of_zero_has_no_sign():
    assert [cosine_text(value) for value in (-0.001, 0.001, -0.2, 0.2)] == ["0.00", "0.00", "−0.20", "+0.20"]
