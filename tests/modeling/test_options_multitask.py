from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.modeling.options_multitask import (
    THRESHOLD,
    best_threshold,
    number_option,
    threshold_option,
    weights_in_use,
    weights_option,
)


def f1_of(threshold: float, scores: np.ndarray, truth: np.ndarray) -> float:
    predicted = scores >= threshold
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_has_the_highest_f1(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(30) < 0.3
    scores = np.clip(0.3 * truth + rng.random(30).round(1) * 0.7, 0.01, 0.99)
    found = best_threshold(scores, truth)
    best = max(f1_of(cut, scores, truth) for cut in np.linspace(0.001, 0.999, 999))
    assert f1_of(found, scores, truth) == pytest.approx(best)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([0.2, 0.8], [False, True], THRESHOLD),
        ([0.1, 0.2, 0.4], [False, True, True], pytest.approx(0.15)),
        ([0.6, 0.9], [False, True], pytest.approx(0.75)),
        ([0.2, 0.8], [False, False], THRESHOLD),
        ([0.0, 0.0], [True, False], THRESHOLD),
        ([], [], THRESHOLD),
    ],
)
def test_threshold_is_half_way_between_two_scores_or_the_default(scores, truth, expected):
    assert best_threshold(scores, truth) == expected


def test_values_become_floats_and_labels_text():
    assert number_option("t", "focal", 2) == 2.0
    assert number_option("t", "mean", -1, least=None) == -1.0
    assert threshold_option("t", "tuned") == "tuned"
    assert weights_option("t", ["1", "2"], "class_weights", {1: 3}) == {"1": 3.0}
    assert weights_in_use({"a": 2.0}, {"a": 9.0}) == {"a": 2.0}
    assert weights_in_use("balanced", {"a": 9.0}) == {"a": 9.0}


@pytest.mark.parametrize("value", [-1, "2", True, float("nan"), float("inf"), 10**400])
def test_number_that_is_not_valid_is_refused(value):
    with pytest.raises(ValueError, match=r"^Task 't': `focal` should be a finite number of at least 0\. Found"):
        number_option("t", "focal", value)


@pytest.mark.parametrize("value", [0, 1, 1.5, "best", None, True])
def test_threshold_that_is_not_valid_is_refused(value):
    with pytest.raises(ValueError, match=r"`threshold` should be a number above 0 and below 1, or `tuned`\. Found"):
        threshold_option("t", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "even",
            r"should be balanced or a map from labels to finite numbers of at least 0\. Found 'even'",
        ),
        ({"a": -1}, "Found {'a': -1}"),
        ({"new": 1.0}, r"should name labels of the task\. Found 'new'\. Did you mean 'news'\?"),
        ({"zzz": 1.0}, r"should name labels of the task\. Found 'zzz'\. Valid: "),
    ],
)
def test_weights_that_are_not_valid_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        weights_option("t", ["news", "a"], "class_weights", value)
