"""The metrics, as `evaluate` modules inside the package, so that scoring needs no network.

Importing `evaluate` and the scoring libraries takes seconds, so this module is imported only when scores are computed.
"""

from __future__ import annotations

from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy import stats
from seqeval import scheme as schemes
from seqeval.metrics.v1 import precision_recall_fscore_support
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from mtl_nlp.evaluation.own_metrics import OWN_METRICS
from mtl_nlp.modeling.label_kinds_multitask import Metric
from mtl_nlp.modeling.spans_multitask import as_bioes

_STRINGS = {"predictions": Value("string"), "references": Value("string")}
_LISTS = {"predictions": List(Value("string")), "references": List(Value("string"))}
_NUMBERS = {"predictions": Value("float64"), "references": Value("float64")}


class _Module(evaluate.Metric):
    """An evaluate module whose features are a class attribute."""

    feature_types: ClassVar[dict[str, Any]]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", features=Features(self.feature_types)
        )


class WordAccuracy(_Module):
    """Share of words with the correct label; rows are lists of labels. Score: `accuracy`."""

    feature_types = _LISTS

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        pairs = [pair for p, r in zip(predictions, references, strict=True) for pair in zip(p, r, strict=True)]
        return {"accuracy": float(np.mean([p == r for p, r in pairs])) if pairs else 0.0}


class SpanF1(_Module):
    """Strict span scores of seqeval: label and both borders must be correct, and tags must be legal.

    Micro average over spans. Scores: `f1`, `precision`, `recall`.
    """

    feature_types = _LISTS
    scheme: ClassVar[type]

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        precision, recall, f1, _ = precision_recall_fscore_support(
            [as_bioes(tags) for tags in references],
            [as_bioes(tags) for tags in predictions],
            average="micro",
            scheme=self.scheme,
            zero_division=0,
        )
        return {"f1": float(f1), "precision": float(precision), "recall": float(recall)}


class SpanF1Iob2(SpanF1):
    """Strict span scores of IOB2 tags."""

    scheme = schemes.IOB2


class SpanF1Iob1(SpanF1):
    """Strict span scores of IOB1 tags."""

    scheme = schemes.IOB1


class SpanF1Bioes(SpanF1):
    """Strict span scores of BIOES tags, and of BILOU and BMES tags, whose prefixes are others for the same meanings."""

    scheme = schemes.IOBES


class Classification(_Module):
    """Share of correct classes, and the unweighted mean of the classes' F1. Scores: `accuracy`, `macro_f1`."""

    feature_types = _STRINGS

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        }


class MultiLabel(_Module):
    """F1 over all decisions, and the unweighted mean of the classes' F1. Scores: `micro_f1`, `macro_f1`."""

    feature_types = _LISTS

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        binarizer = MultiLabelBinarizer().fit([*predictions, *references])
        if not len(binarizer.classes_):
            return {"micro_f1": 0.0, "macro_f1": 0.0}
        truth, guess = binarizer.transform(references), binarizer.transform(predictions)
        # Computed without sklearn, which treats one column as a binary problem with an F1 for the class "no", too.
        hits, named = (truth * guess).sum(axis=0), (truth + guess).sum(axis=0)
        return {"micro_f1": float(2 * hits.sum() / named.sum()), "macro_f1": float(np.mean(2 * hits / named))}


class Correlation(_Module):
    """Pearson's r, Spearman's rho and the mean squared error. Scores: `pearson`, `spearman`, `mse`.

    If predictions or references are constant, both correlations are 0.
    """

    feature_types = _NUMBERS

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        constant = len(set(predictions)) < 2 or len(set(references)) < 2
        return {
            "pearson": 0.0 if constant else float(stats.pearsonr(predictions, references)[0]),
            "spearman": 0.0 if constant else float(stats.spearmanr(predictions, references)[0]),
            "mse": float(np.mean((np.asarray(predictions) - np.asarray(references)) ** 2)),
        }


METRICS: dict[str, type[_Module]] = {
    "accuracy": WordAccuracy,
    "span_f1_iob2": SpanF1Iob2,
    "span_f1_iob1": SpanF1Iob1,
    **dict.fromkeys(("span_f1_bioes", "span_f1_bilou", "span_f1_bmes"), SpanF1Bioes),
    "classification": Classification,
    "multi_label": MultiLabel,
    "correlation": Correlation,
}
"""The metrics by name, the `metric` of a label kind."""


def compute(metric: Metric, predictions: list, references: list) -> dict[str, float]:
    """Return the scores of predictions, by name.

    Args:
        metric: a name in `METRICS`, a name from `register_metric`, or a function of predictions and references.
        predictions: canonical labels, in the order of the references.
        references: canonical labels.

    Raises:
        ValueError: if there are no references or there is no such metric.
    """
    if not references:
        raise ValueError("There is no labelled row to score.")
    if isinstance(metric, str) and metric not in METRICS and metric not in OWN_METRICS:
        raise ValueError(f"No metric {metric!r} is registered. The metrics are {', '.join([*METRICS, *OWN_METRICS])}.")
    if not isinstance(metric, str) or metric in OWN_METRICS:
        own = OWN_METRICS[metric] if isinstance(metric, str) else metric
        if metric in METRICS:
            raise ValueError(
                f"The metric {metric!r} of {own.__module__}.{own.__qualname__} has the name of a metric of mtl_nlp. "
                f"Rename it."
            )
        return {name: float(value) for name, value in own(predictions, references).items()}
    scores = METRICS[metric](keep_in_memory=True).compute(predictions=predictions, references=references)
    return dict(scores or {})
