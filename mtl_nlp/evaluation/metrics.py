"""The metrics, as `evaluate` modules inside the package, so that scoring needs no network.

Importing `evaluate` and the scoring libraries takes seconds, so this module is imported only when scores are computed.
"""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy import stats
from seqeval import scheme as schemes
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, r2_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

from mtl_nlp.evaluation.own_metrics import OWN_METRICS
from mtl_nlp.evaluation.spans import span_scores
from mtl_nlp.modeling.label_kinds_multitask import Metric
from mtl_nlp.modeling.scores_multitask import DEFAULT_SCORES, OWN_SCORES, ChosenScores

_STRINGS = {"predictions": Value("string"), "references": Value("string")}
_LISTS = {"predictions": List(Value("string")), "references": List(Value("string"))}
_NUMBERS = {"predictions": Value("float64"), "references": Value("float64")}


class _Module(evaluate.Metric):
    """An evaluate module whose features are a class attribute."""

    feature_types: ClassVar[dict[str, Any]]

    @classmethod
    @abc.abstractmethod
    def scores(cls, predictions: list, references: list) -> dict[str, float]:
        """Return the scores by name, without a detour through Arrow, which a module makes."""

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return self.scores(predictions, references)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", features=Features(self.feature_types)
        )


class WordAccuracy(_Module):
    """Share of words with the correct label; rows are lists of labels. Score: `accuracy`."""

    feature_types = _LISTS

    @classmethod
    def scores(cls, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """Return the scores by name."""
        guess, truth = _flat(predictions, references)
        return {"accuracy": sum(map(operator.eq, guess, truth)) / len(truth) if truth else 0.0}


class SpanF1(_Module):
    """Strict span scores of seqeval: label and both borders must be correct, and tags must be legal.

    Micro average over spans. Scores: `f1`, `precision`, `recall`.
    """

    feature_types = _LISTS
    scheme: ClassVar[type]

    @classmethod
    def scores(cls, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """Return the scores by name."""
        precision, recall, f1, _ = span_scores(predictions, references, cls.scheme, "micro")
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

    @classmethod
    def scores(cls, predictions: list[str], references: list[str]) -> dict[str, float]:
        """Return the scores by name."""
        _, (guess, truth) = class_ids(predictions, references)
        return {
            "accuracy": float(accuracy_score(truth, guess)),
            "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0)),
        }


class MultiLabel(_Module):
    """F1 over all decisions, and the unweighted mean of the classes' F1. Scores: `micro_f1`, `macro_f1`."""

    feature_types = _LISTS

    @classmethod
    def scores(cls, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """Return the scores by name."""
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

    @classmethod
    def scores(cls, predictions: list[float], references: list[float]) -> dict[str, float]:
        """Return the scores by name."""
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


_AVERAGED = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


def class_ids(*columns: Sequence[str]) -> tuple[list[str], list[np.ndarray]]:
    """Return the classes that occur in several columns, sorted, and the columns as arrays of indices of classes."""
    names = sorted({name for column in columns for name in column})
    numbers = {name: number for number, name in enumerate(names)}
    return names, [np.array([numbers[name] for name in column], dtype=np.int64) for column in columns]


def _flat(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the labels of the words of all texts.

    Raises:
        ValueError: if a text has different numbers of labels.
    """
    if [*map(len, predictions)] != [*map(len, references)]:
        raise ValueError("Predictions and references should have one label per word.")
    return [*chain.from_iterable(predictions)], [*chain.from_iterable(references)]


def _of_classes(name: str, given: Sequence[Any], labels: Sequence[Any]) -> float:
    """Return a score of classes by its name, such as `macro_f1`."""
    _, (predictions, references) = class_ids(given, labels)
    if name == "accuracy":
        return accuracy_score(references, predictions)
    if name == "mcc":
        return matthews_corrcoef(references, predictions)
    if name == "balanced_accuracy":  # the mean recall of the classes that occur; scikit-learn warns about others
        return recall_score(references, predictions, labels=np.unique(references), average="macro", zero_division=0)
    average, _, score = name.partition("_")
    return _AVERAGED[score](references, predictions, average=average, zero_division=0)


def _of_words(name: str, predictions: list[list[str]], references: list[list[str]]) -> float:
    guess, truth = _flat(predictions, references)
    return _of_classes(name, guess, truth) if truth else 0.0


def _of_spans(scheme: type) -> Callable[[str, list, list], float]:
    def score(name: str, predictions: list[list[str]], references: list[list[str]]) -> float:
        if name == "accuracy":
            return _of_words(name, predictions, references)
        if all(tag == "O" for labels in (*predictions, *references) for tag in labels):
            return 0.0  # without any span, seqeval would take the mean of nothing
        average, _, which = name.partition("_")
        place = ("precision", "recall", "f1").index(which)
        return span_scores(predictions, references, scheme, average)[place]

    return score


def _of_sets(name: str, predictions: list[list[str]], references: list[list[str]]) -> float:
    if name == "exact_match":
        return float(np.mean([set(p) == set(r) for p, r in zip(predictions, references, strict=True)]))
    binarizer = MultiLabelBinarizer().fit([*predictions, *references])
    if not len(binarizer.classes_):
        return 0.0
    truth, guess = binarizer.transform(references), binarizer.transform(predictions)
    hits, guessed, named = (truth * guess).sum(axis=0), guess.sum(axis=0), truth.sum(axis=0)
    average, _, score = name.partition("_")
    if average == "weighted":  # by the number of texts of each class
        of_class = 2 * hits / np.maximum(guessed + named, 1)
        return float((of_class * named).sum() / max(named.sum(), 1))
    return float(hits.sum() / max({"precision": guessed, "recall": named}[score].sum(), 1))


def _of_numbers(name: str, predictions: list[float], references: list[float]) -> float:
    errors = np.asarray(predictions) - np.asarray(references)
    if name == "r2":
        return 0.0 if len(set(references)) < 2 else r2_score(references, predictions)
    return float(np.abs(errors).mean() if name == "mae" else np.sqrt((errors**2).mean()))


_FURTHER: dict[str, Callable[[str, list, list], float]] = {
    "accuracy": _of_words,
    "classification": _of_classes,
    "multi_label": _of_sets,
    "correlation": _of_numbers,
    **{name: _of_spans(METRICS[name].scheme) for name in ("span_f1_iob2", "span_f1_iob1", "span_f1_bioes")},
}
"""The metric of a label kind -> the function that computes its further scores by their names."""


def _chosen(metric: ChosenScores, predictions: list, references: list) -> dict[str, float]:
    defaults = DEFAULT_SCORES[metric.metric]
    known = compute(metric.metric, predictions, references) if set(metric.names) & set(defaults) else {}
    found = {}
    for name in metric.names:
        if name in OWN_SCORES:
            found[name] = float(OWN_SCORES[name](predictions, references))
        else:
            found[name] = (
                known[name] if name in known else float(_FURTHER[metric.metric](name, predictions, references))
            )
    return found


def compute(metric: Metric, predictions: list, references: list) -> dict[str, float]:
    """Return the scores of predictions, by name.

    Args:
        metric: a name in `METRICS`, a name from `register_metric`, a function of predictions and references, or the
            scores that a task asks for.
        predictions: canonical labels, in the order of the references.
        references: canonical labels.

    Raises:
        ValueError: if there are no references or there is no such metric.
    """
    if not references:
        raise ValueError("There is no labelled row to score.")
    if isinstance(metric, ChosenScores):
        return _chosen(metric, predictions, references)
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
    return METRICS[metric].scores(predictions, references)
