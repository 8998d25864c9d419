"""Scores per label and confusion matrices of the runs of one side, as means over the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.modeling.scores_multitask import metric_name
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.resampling import Runs
from mtl_nlp.transfer.sufficient import SpanReader

MOST_LABELS = 30
"""The number of labels in a confusion matrix; `OTHER` stands for the rarer labels."""
OTHER = "other"


@dataclass(frozen=True)
class LabelScore:
    """The scores of one label.

    Attributes:
        label: the label; the class of spans for a task of spans.
        precision: the share of predictions of the label that are correct; 0 if there are none.
        recall: the share of gold units of the label that are found; 0 if there are none.
        f1: the harmonic mean of both, as a mean over runs.
        support: the number of gold units: words, spans or texts.
        predicted: the number of predictions of the label, as a mean over runs.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: float

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix over words or texts.

    Attributes:
        labels: the labels by frequency in the gold labels and predictions; the last is `other` if some are folded.
        counts: the number of units for each gold label (row) and prediction (column), as a mean over runs.
        folded: the number of labels in `other`.
    """

    labels: list[str]
    counts: list[list[float]]
    folded: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as plain data."""
        return asdict(self)


def label_scores(runs: Runs, task: Task) -> list[LabelScore]:
    """Return the scores of each label by descending support, or an empty list for a task without label names."""
    if not task.kind.has_label_space:
        return []
    counted = [_counts(run, task) for run in runs]
    support = Counter({label: gold for label, (_, _, gold) in counted[0].items()})
    names = sorted({label for counts in counted for label in counts}, key=lambda label: (-support[label], label))
    return [_mean_score(label, [counts.get(label, [0, 0, 0]) for counts in counted]) for label in names]


def _mean_score(label: str, counts: Sequence[Sequence[int]]) -> LabelScore:
    hits, predicted, gold = np.array(counts, dtype=float).T
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(gold, 1)
    f1 = 2 * hits / np.maximum(predicted + gold, 1)
    return LabelScore(
        label, float(precision.mean()), float(recall.mean()), float(f1.mean()), int(gold[0]), float(predicted.mean())
    )


def _counts(run: Sequence[Prediction], task: Task) -> dict[str, list[int]]:
    """Return correct, predicted and gold units of each label."""
    counts: dict[str, list[int]] = {}
    for predicted, gold in _units(run, task):
        for name, column in ((predicted & gold, 0), (predicted, 1), (gold, 2)):
            for unit in name:
                counts.setdefault(unit[0], [0, 0, 0])[column] += 1
    return counts


def _units(run: Sequence[Prediction], task: Task) -> Iterator[tuple[frozenset[Any], frozenset[Any]]]:
    """Yield the predicted and gold units of each text; the first entry of a unit is its label."""
    kind = task.kind
    if (metric := metric_name(kind.metric)) is not None and metric.startswith("span_"):
        spans = SpanReader(metric)
        for text in run:
            yield spans.read(text.prediction), spans.read(text.gold)
        return
    for text in run:
        predicted, gold = ([*kind.names_in(label)] for label in (text.prediction, text.gold))
        if kind.labels_words:
            yield frozenset((n, i) for i, n in enumerate(predicted)), frozenset((n, i) for i, n in enumerate(gold))
        else:
            yield frozenset((name,) for name in predicted), frozenset((name,) for name in gold)


def confusion(runs: Runs, task: Task, most: int = MOST_LABELS) -> Confusion | None:
    """Return the confusion matrix of a task with one class per unit (word or text), or None for other tasks.

    Spans are counted by their tags, since a wrong span may have no counterpart.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for run in runs:
        for text in run:
            gold, predicted = [*task.kind.names_in(text.gold)], [*task.kind.names_in(text.prediction)]
            units = len(text.gold) if task.kind.labels_words else 1
            if not len(gold) == len(predicted) == units:
                return None
            pairs.update(zip(gold, predicted, strict=True))
    frequency: Counter[str] = Counter()
    for (gold_name, name), count in pairs.items():
        frequency[gold_name] += count
        frequency[name] += count
    ranked = sorted(frequency, key=lambda label: (-frequency[label], label))
    folded = len(ranked) - most if len(ranked) > most else 0
    kept = ranked[:most]
    places = {label: place for place, label in enumerate(kept)}
    counts = np.zeros((len(kept) + bool(folded),) * 2)
    for (gold_name, name), count in pairs.items():
        counts[places.get(gold_name, len(kept)), places.get(name, len(kept))] += count / len(runs)
    return Confusion([*kept, *[OTHER] * bool(folded)], counts.tolist(), folded) if kept else None
