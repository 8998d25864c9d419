"""Scores on parts of the texts, by length and by words seen in training, and calibration, as means over the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.resampling import Runs
from mtl_nlp.transfer.sufficient import text_scores

BINS = 15
"""The number of bins of equal width for the calibration error, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class Slice:
    """The score on a part of the texts.

    Attributes:
        name: a phrase for the part, such as `8 to 15 words`.
        units: the number of texts or words in the part.
        unit: `texts` or `words`.
        score: the name of the score: the task's primary score, or `mean absolute error` for numbers.
        value: the score, as a mean over runs; None if it is not defined.
    """

    name: str
    units: int
    unit: str
    score: str
    value: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the slice as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Bin:
    """A bin of the predictions of all runs by probability.

    Attributes:
        low: the lowest probability, exclusive except for 0.
        high: the highest probability, inclusive.
        units: the number of predictions of an average run.
        confidence: the mean probability.
        accuracy: the share of correct predictions.
    """

    low: float
    high: float
    units: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of Guo et al. (2017): Σ_bins (units / all units) · |accuracy - confidence|.

    Attributes:
        error: the error, as a mean over runs.
        bins: the bins that are not empty.
    """

    error: float
    bins: list[Bin]

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as plain data."""
        return asdict(self)


def number_of_words(text: Prediction) -> int:
    """Return the number of words, split at white space where the text has no words of its own."""
    return len(text.tokens if text.tokens is not None else f"{text.text or ''} {text.text_pair or ''}".split())


def is_number(label: Any) -> bool:
    """Return whether a label is a number or a list of numbers, for which errors have a size."""
    if isinstance(label, list):
        return bool(label) and all(map(is_number, label))
    return isinstance(label, int | float) and not isinstance(label, bool)


def absolute_error(text: Prediction) -> float:
    """Return the mean absolute error of the numbers of one text."""
    return float(np.mean(np.abs(np.asarray(text.prediction, dtype=float) - np.asarray(text.gold, dtype=float))))


def by_length(runs: Runs, task: Task) -> list[Slice]:
    """Return the score on the four quarters of the texts by number of words; equal quarters are joined."""
    lengths = np.array([number_of_words(text) for text in runs[0]])
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="inverted_cdf"))
    parts: dict[str, np.ndarray] = {}
    below = -1
    for edge in edges.astype(int).tolist():
        part = (lengths > below) & (lengths <= edge)
        shortest = int(lengths[part].min())
        parts[f"{edge} words" if shortest == edge else f"{shortest} to {edge} words"] = part
        below = edge
    return _slices(parts, runs, task)


def by_seen(runs: Runs, task: Task) -> list[Slice]:
    """Return the scores by words that occur in training, or an empty list if that is unknown.

    For tasks that label words: the accuracy of words seen in training, and of unseen words. For tasks that label texts:
    the score on two halves of the texts, by the share of unseen words.
    """
    if any(text.seen is None for text in runs[0]):
        return []
    if task.kind.labels_words:
        return [] if is_number(runs[0][0].gold) else _by_seen_words(runs)
    shares = np.array([1 - np.mean(text.seen) if text.seen else 0.0 for text in runs[0]])
    middle = float(np.median(shares))
    few = shares <= middle
    names = (f"at most {middle:.0%} unseen words", f"more than {middle:.0%} unseen words")
    return _slices({name: part for name, part in zip(names, (few, ~few), strict=True) if part.any()}, runs, task)


def _by_seen_words(runs: Runs) -> list[Slice]:
    correct = np.array(
        [[p == g for text in run for p, g in zip(text.prediction, text.gold, strict=True)] for run in runs]
    )
    seen = np.array([word for text in runs[0] for word in text.seen or ()], dtype=bool)
    parts = {"words seen in training": seen, "unseen words": ~seen}
    return [
        Slice(name, int(part.sum()), "words", "accuracy", float(correct[:, part].mean()))
        for name, part in parts.items()
        if part.any()
    ]


def _slices(parts: Mapping[str, np.ndarray], runs: Runs, task: Task) -> list[Slice]:
    counts = np.array([*parts.values()], dtype=float)
    if is_number(runs[0][0].gold):
        name = "mean absolute error"
        errors = np.array([[absolute_error(text) for text in run] for run in runs]).mean(axis=0)
        values = counts @ errors / counts.sum(axis=1)
    else:
        kind = task.kind
        name = kind.primary_score
        values = np.mean(
            [
                text_scores(kind.metric, name, [text.prediction for text in run], [text.gold for text in run]).of(
                    counts
                )
                for run in runs
            ],
            axis=0,
        )
    return [
        Slice(part, int(chosen.sum()), "texts", name, float(value) if np.isfinite(value) else None)
        for part, chosen, value in zip(parts, parts.values(), values, strict=True)
    ]


def calibration(runs: Runs) -> Calibration | None:
    """Return the calibration of the probabilities of predictions, or None if there are none.

    A unit is a word, a text, or the decision about one class of a set, whose probability is that of the decision made.
    """
    by_run = [np.array([*_decisions(run)], dtype=float).reshape(-1, 2) for run in runs]
    if not all(len(decisions) for decisions in by_run):
        return None
    error = float(np.mean([sum(part[0] * abs(part[1] - part[2]) for part in _bins(each)) for each in by_run]))
    every = np.concatenate(by_run)
    width = 1 / BINS
    bins = [
        Bin(index * width, (index + 1) * width, share * len(every) / len(runs), confidence, accuracy)
        for share, confidence, accuracy, index in _bins(every)
    ]
    return Calibration(error, bins)


def _bins(decisions: np.ndarray) -> list[tuple[float, float, float, int]]:
    """Return share, mean probability, share of correct decisions and index of each bin that is not empty."""
    probability, correct = decisions.T
    places = np.clip(np.ceil(probability * BINS).astype(int) - 1, 0, BINS - 1)
    parts = [(index, places == index) for index in np.unique(places).tolist()]
    return [(float(p.mean()), float(probability[p].mean()), float(correct[p].mean()), index) for index, p in parts]


def _decisions(run: Sequence[Prediction]) -> Iterator[tuple[float, bool]]:
    for text in run:
        yield from decisions_of(text)


def decisions_of(text: Prediction) -> list[tuple[float, bool]]:
    """Return the probability of each decision about a text and whether the decision is correct."""
    score = text.score
    if isinstance(score, dict):
        names = {*text.prediction}
        decided = [(name in names, name, float(value)) for name, value in score.items()]
        return [(value if yes else 1 - value, yes == (name in text.gold)) for yes, name, value in decided]
    if isinstance(score, list):
        return [(float(s), p == g) for s, p, g in zip(score, text.prediction, text.gold, strict=True) if s is not None]
    return [] if score is None else [(float(score), text.prediction == text.gold)]
