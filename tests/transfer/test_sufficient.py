"""Scores from sufficient statistics equal the scores of `compute` on the resampled texts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mtl_nlp.evaluation.metrics import METRICS, compute
from mtl_nlp.modeling.spans_multitask import repair_tags
from mtl_nlp.transfer.sufficient import _BUILDERS, text_scores

LABELS = {"accuracy": ["NOUN", "VERB", "ADJ"], "classification": [*"abcd"], "multi_label": [*"xyz"]}
SPAN_TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
NAMES = {"accuracy": ["accuracy"], "classification": ["accuracy", "macro_f1"], "multi_label": ["micro_f1", "macro_f1"]}
NAMES |= {"correlation": ["pearson", "spearman", "mse"]}
NAMES |= {metric: ["f1", "precision", "recall"] for metric in METRICS if metric.startswith("span")}


def labels_of(metric: str, n: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    if metric == "correlation":
        return (1000 + rng.normal(size=n)).tolist()
    if metric == "classification":
        return [
            "once" if i == 0 and seed else str(rng.choice(LABELS[metric], p=[0.7, 0.1, 0.1, 0.1])) for i in range(n)
        ]
    if metric == "multi_label":
        return [sorted({*map(str, rng.choice(LABELS[metric], size=rng.integers(0, 3)))}) for _ in range(n)]
    if metric == "accuracy":
        return [rng.choice(LABELS[metric], size=2 + i % 5).tolist() for i in range(n)]
    scheme = metric.removeprefix("span_f1_")
    return [repair_tags(rng.choice(SPAN_TAGS, size=2 + i % 9).tolist(), scheme) for i in range(n)]


def resamples(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=size).astype(float)


@pytest.mark.parametrize(("metric", "name"), [(metric, name) for metric in METRICS for name in NAMES[metric]])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_scores_of_resamples_equal_compute(metric, name, n):
    guess, truth = labels_of(metric, n, 0), labels_of(metric, n, 1)
    counts = np.vstack([np.ones(n), resamples(n, 5)])
    expected = []
    for row in counts.astype(int):
        drawn = np.repeat(np.arange(n), row)
        expected.append(compute(metric, [guess[i] for i in drawn], [truth[i] for i in drawn])[name])
    np.testing.assert_allclose(text_scores(metric, name, guess, truth).of(counts), expected, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_every_score_of_every_metric_is_covered(metric):
    assert sorted(compute(metric, labels_of(metric, 3, 0), labels_of(metric, 3, 1))) == sorted(NAMES[metric])
    assert all((metric, name) in _BUILDERS for name in NAMES[metric] if name != "spearman")


@pytest.mark.parametrize(
    ("metric", "guess", "truth"),
    [
        ("multi_label", [[], []], [[], []]),
        ("multi_label", [["x"], []], [[], []]),
        ("span_f1_iob2", [["O"], ["O"]], [["O"], ["O"]]),
        ("span_f1_iob2", [["I-X", "O"], ["B-X", "I-Y"]], [["B-X", "O"], ["B-X", "O"]]),
        ("accuracy", [[], []], [[], []]),
        ("classification", ["a", "a"], ["a", "a"]),
        ("correlation", [1.0, 1.0], [1.0, 2.0]),
    ],
)
def test_degenerate_texts_have_the_scores_of_compute(metric, guess, truth):
    for name in NAMES[metric]:
        found = text_scores(metric, name, guess, truth).of(np.ones((1, 2)))
        assert found.tolist() == [compute(metric, guess, truth)[name]]


def test_an_empty_resample_has_no_score():
    empty = np.zeros((1, 2))
    assert np.isnan(text_scores("accuracy", "accuracy", [["a"], ["a"]], [["a"], ["a"]]).of(empty))
    assert np.isnan(text_scores("correlation", "spearman", [1.0, 2.0], [1.0, 2.0]).of(empty))


def test_a_metric_given_as_a_function_is_computed_for_every_resample():
    def metric(predictions: list, references: list) -> dict[str, float]:
        return {"exact": float(np.mean([p == r for p, r in zip(predictions, references, strict=True)]))}

    scores = text_scores(metric, "exact", [1, 2, 3], [1, 2, 4])
    assert scores.of(np.array([[1.0, 1, 1], [0, 0, 2], [2, 1, 0]])).tolist() == [2 / 3, 0.0, 1.0]
    assert not scores.is_fast


def test_a_metric_that_refuses_a_resample_is_undefined_there():
    def metric(predictions: list, references: list) -> dict[str, float]:
        if len({*references}) < 2:
            raise ValueError("needs two classes")
        return {"exact": 1.0}

    found = text_scores(metric, "exact", ["a", "b"], ["a", "b"]).of(np.array([[1.0, 1], [2, 0]]))
    assert found[0] == 1
    assert np.isnan(found[1])


def test_a_tag_of_a_different_scheme_is_refused():
    with pytest.raises(ValueError, match="Invalid"):
        text_scores("span_f1_iob2", "f1", [["E-X"]], [["O"]])


def test_2000_resamples_of_2000_texts_take_less_than_two_seconds():
    counts = resamples(2000, 2000)
    guess, truth = labels_of("span_f1_iob2", 2000, 0), labels_of("span_f1_iob2", 2000, 1)
    started = time.process_time()
    text_scores("span_f1_iob2", "f1", guess, truth).of(counts)
    assert time.process_time() - started < 2.0
