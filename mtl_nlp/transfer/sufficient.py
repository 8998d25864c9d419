"""Scores of many resamples of the same texts, from sufficient statistics per text.

A resample of texts is a row of counts, one count per text. A score such as F1 is a function of sums over texts (true
positives, predicted and gold spans), so the scores of B resamples need one product of matrices: counts (B, texts) times
statistics (texts, k). The mean of F1 per text would be a different quantity. A score without such sums (Spearman's rho,
or a metric given as a function) is computed again for every resample.

Every score equals the score of `mtl_nlp.evaluation.metrics.compute` on the resampled texts.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from scipy import sparse

from mtl_nlp.modeling.label_kinds_multitask import Metric
from mtl_nlp.modeling.scores_multitask import ChosenScores
from mtl_nlp.modeling.spans_multitask import SCHEMES, as_bioes

_Columns = tuple[Any, Callable[[np.ndarray], np.ndarray]]
"""The statistics, shape (texts, k), and the function from their sums, shape (B, k), to scores, shape (B,)."""


class TextScores(abc.ABC):
    """A score as a function of how often each text occurs."""

    is_fast: bool
    """Whether the scores of many resamples cost little."""

    @abc.abstractmethod
    def of(self, counts: np.ndarray) -> np.ndarray:
        """Return the score of each resample, shape (B,); NaN for a resample without texts or an undefined score.

        Args:
            counts: the number of occurrences of each text, shape (B, texts), float.
        """


@dataclass(frozen=True)
class _Summed(TextScores):
    values: Any
    score: Callable[[np.ndarray], np.ndarray]
    is_fast = True

    def of(self, counts: np.ndarray) -> np.ndarray:
        # Undefined scores are NaN; the caller reports NaN.
        with np.errstate(all="ignore"):
            scores = self.score(counts @ self.values)
        return np.where(counts.any(axis=1), scores, np.nan)


@dataclass(frozen=True)
class _Rescored(TextScores):
    metric: Metric
    name: str
    predictions: Sequence[Any]
    references: Sequence[Any]
    is_fast = False

    def of(self, counts: np.ndarray) -> np.ndarray:
        return np.array([self._score(row.astype(np.int64)) for row in counts])

    def _score(self, counts: np.ndarray) -> float:
        from mtl_nlp.evaluation.metrics import compute

        drawn = np.repeat(np.arange(len(counts)), counts).tolist()
        if not drawn:
            return np.nan
        predictions, references = ([labels[text] for text in drawn] for labels in (self.predictions, self.references))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # a resample may be degenerate although the texts are not
            try:
                return compute(self.metric, predictions, references)[self.name]
            except (ValueError, ArithmeticError):
                return np.nan  # such as a metric that needs two classes


def text_scores(metric: Metric, name: str, predictions: Sequence[Any], references: Sequence[Any]) -> TextScores:
    """Return one score of a metric as a function of how often each text occurs.

    Args:
        metric: a name in `mtl_nlp.evaluation.metrics.METRICS`, or a function of predictions and references.
        name: the name of the score, such as `f1`.
        predictions: canonical labels, in the order of the references.
        references: canonical labels, one per text.

    Raises:
        ValueError: if the metric has no score of that name, or labels do not fit the metric.
    """
    kept = metric.metric if isinstance(metric, ChosenScores) else metric
    if isinstance(kept, str) and (build := _BUILDERS.get((kept, name))):
        return _Summed(*build(predictions, references))
    # One score is enough for a resample.
    alone = ChosenScores(metric.metric, (name,)) if isinstance(metric, ChosenScores) else metric
    return _Rescored(alone, name, predictions, references)


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return quotients, and 0 for 0 / 0, as scikit-learn and seqeval do with `zero_division=0`."""
    return np.divide(numerators, denominators, out=np.zeros_like(numerators, dtype=float), where=denominators != 0)


def _word_accuracy(predictions: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> _Columns:
    correct = [sum(p == r for p, r in zip(*pair, strict=True)) for pair in zip(predictions, references, strict=True)]
    values = np.array([correct, [len(labels) for labels in references]], dtype=float).T
    return values, lambda sums: _ratio(sums[:, 0], sums[:, 1])


def _class_accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> _Columns:
    values = np.array([[p == r, 1] for p, r in zip(predictions, references, strict=True)], dtype=float)
    return values, lambda sums: _ratio(sums[:, 0], sums[:, 1])


def _span_f1(scheme: str, name: str) -> Callable[[Sequence[Any], Sequence[Any]], _Columns]:
    def build(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> _Columns:
        spans = SpanReader(scheme)
        values = np.empty((len(references), 3))
        for text, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            predicted, gold = spans.read(prediction), spans.read(reference)
            values[text] = len(predicted & gold), len(predicted), len(gold)
        return values, scores[name]

    scores: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "f1": lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2]),
        "precision": lambda sums: _ratio(sums[:, 0], sums[:, 1]),
        "recall": lambda sums: _ratio(sums[:, 0], sums[:, 2]),
    }
    return build


class SpanReader:
    """A reader of the spans in a text's tags, as seqeval counts them in its strict mode.

    Most texts have the same tags in every run, so tags are read once.

    Args:
        metric: the name of a span metric, such as `span_f1_iob2`.
    """

    def __init__(self, metric: str) -> None:
        from mtl_nlp.evaluation.metrics import METRICS

        self._scheme = METRICS[metric].scheme
        self._known: dict[tuple[str, ...], frozenset[tuple[str, int, int]]] = {}

    def read(self, tags: Sequence[str]) -> frozenset[tuple[str, int, int]]:
        """Return the spans as (label, first word, last word + 1).

        Raises:
            ValueError: if a tag does not belong to the scheme.
        """
        from seqeval.scheme import Tokens

        key = tuple(tags)
        if key not in self._known:
            entities = Tokens(as_bioes(tags), self._scheme).entities
            self._known[key] = frozenset((entity.tag, entity.start, entity.end) for entity in entities)
        return self._known[key]


def _per_class(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Any, int]:
    """Return each text's hits per class, then predicted plus gold labels per class, and the number of classes."""
    classes = {name: i for i, name in enumerate(dict.fromkeys(chain(chain(*references), chain(*predictions))))}
    texts: list[int] = []
    columns: list[int] = []
    for text, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        hits = [classes[name] for name in {*prediction} & {*reference}]
        named = [len(classes) + classes[name] for name in chain({*prediction}, {*reference})]
        columns += hits + named
        texts += [text] * (len(hits) + len(named))
    # Equal places are added up. The matrix is sparse, since a text has few of many classes.
    shape = (len(references), 2 * len(classes))
    return sparse.csr_array((np.ones(len(texts)), (texts, columns)), shape=shape), len(classes)


def _macro_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> _Columns:
    values, classes = _per_class(predictions, references)

    def score(sums: np.ndarray) -> np.ndarray:
        # The mean is over the classes that occur in the resample, as gold or prediction.
        hits, named = sums[:, :classes], sums[:, classes:]
        return _ratio(_ratio(2 * hits, named).sum(axis=1), (named > 0).sum(axis=1))

    return values, score


def _one_class_macro_f1(predictions: Sequence[str], references: Sequence[str]) -> _Columns:
    return _macro_f1([[label] for label in predictions], [[label] for label in references])


def _micro_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> _Columns:
    pairs = [({*prediction}, {*reference}) for prediction, reference in zip(predictions, references, strict=True)]
    values = np.array([[len(p & r), len(p) + len(r)] for p, r in pairs], dtype=float)
    return values, lambda sums: _ratio(2 * sums[:, 0], sums[:, 1])


def _mse(predictions: Sequence[float], references: Sequence[float]) -> _Columns:
    errors = (np.asarray(predictions, dtype=float) - np.asarray(references, dtype=float)) ** 2
    return np.stack([errors, np.ones_like(errors)], axis=1), lambda sums: sums[:, 0] / sums[:, 1]


def _pearson(predictions: Sequence[float], references: Sequence[float]) -> _Columns:
    x, y = np.asarray(predictions, dtype=float), np.asarray(references, dtype=float)
    x, y = x - x.mean(), y - y.mean()  # sums of numbers far from 0 would cancel

    def score(sums: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = sums.T
        of_x, of_y = sxx - sx**2 / n, syy - sy**2 / n
        # A resample of equal numbers has a variance of 0 up to rounding, and `compute` then returns 0.
        constant = (of_x <= 1e-12 * sxx) | (of_y <= 1e-12 * syy)
        return np.where(constant, 0.0, (sxy - sx * sy / n) / np.sqrt(of_x * of_y))

    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), score


_BUILDERS: dict[tuple[str, str], Callable[[Sequence[Any], Sequence[Any]], _Columns]] = {
    ("accuracy", "accuracy"): _word_accuracy,
    ("classification", "accuracy"): _class_accuracy,
    ("classification", "macro_f1"): _one_class_macro_f1,
    ("multi_label", "micro_f1"): _micro_f1,
    ("multi_label", "macro_f1"): _macro_f1,
    ("correlation", "pearson"): _pearson,
    ("correlation", "mse"): _mse,
    **{
        (f"span_f1_{scheme}", name): _span_f1(f"span_f1_{scheme}", name)
        for scheme in SCHEMES
        for name in ("f1", "precision", "recall")
    },
}
"""(metric, score) -> the function that returns the score's statistics per text."""
