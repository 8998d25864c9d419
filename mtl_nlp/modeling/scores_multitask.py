"""The scores that a task can ask for by name, and the one that enters `mtl_score`. The module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .hints_multitask import hint

_CLASSES = (
    *("accuracy", "balanced_accuracy", "mcc", "macro_f1", "micro_f1", "weighted_f1"),
    *("macro_precision", "macro_recall", "weighted_precision", "weighted_recall"),
)
_SPANS = ("f1", "precision", "recall", "macro_f1", "weighted_f1", "accuracy")
SCORES: dict[str, tuple[str, ...]] = {
    "accuracy": _CLASSES,
    "classification": _CLASSES,
    "span_f1_iob2": _SPANS,
    "span_f1_iob1": _SPANS,
    "span_f1_bioes": _SPANS,
    "multi_label": ("micro_f1", "macro_f1", "weighted_f1", "micro_precision", "micro_recall", "exact_match"),
    "correlation": ("pearson", "spearman", "mse", "mae", "rmse", "r2"),
}
"""The metric of a label kind -> the scores that a task of this kind can ask for."""

DEFAULT_SCORES: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "classification": ("accuracy", "macro_f1"),
    "span_f1_iob2": ("f1", "precision", "recall"),
    "span_f1_iob1": ("f1", "precision", "recall"),
    "span_f1_bioes": ("f1", "precision", "recall"),
    "multi_label": ("micro_f1", "macro_f1"),
    "correlation": ("pearson", "spearman", "mse"),
}
"""The metric of a label kind -> the scores of a task that asks for none."""

OWN_SCORES: dict[str, Callable[[list[Any], list[Any]], float]] = {}
"""Further scores by name, as functions from (predictions, references). A task of any kind can ask for them."""

ERRORS = frozenset({"mse", "mae", "rmse"})
"""The scores that are better if they are lower."""


class ChosenScores(NamedTuple):
    """A metric with the scores that a task asks for.

    Attributes:
        metric: the metric of the label kind, a key of `SCORES`.
        names: the names of the scores, in their order.
    """

    metric: str
    names: tuple[str, ...]


def choose_scores(
    metric: Any, usual: str, metrics: Sequence[str] | None, primary: str | None
) -> tuple[ChosenScores, str]:
    """Return the scores that a task asks for, and the one that enters `mtl_score`.

    Args:
        metric: the metric of the task's label kind.
        usual: the kind's own score that enters `mtl_score`.
        metrics: the names of the scores; None for those of the kind, and for `primary`.
        primary: the score that enters `mtl_score`; None for that of the kind if it is among `metrics`, else for the
            first of `metrics` of which a higher value is better.

    Raises:
        ValueError: if the kind has no score of a name, or a lower value of `primary` is better.
    """
    if not isinstance(metric, str) or metric not in SCORES:
        raise ValueError("`metrics`: tasks of this type have a metric of their own. Leave out `metrics` and `primary`.")
    valid = [*SCORES[metric], *OWN_SCORES]
    names = list(dict.fromkeys(DEFAULT_SCORES[metric] if metrics is None else metrics))
    for name in names:
        _check_name("metrics", name, valid)
    rising = [name for name in names if name not in ERRORS]
    if primary is None:
        if not rising:
            raise ValueError(f"`metrics`: a lower value is better for all of {', '.join(names)}. Add a further score.")
        primary = usual if usual in rising else rising[0]
    _check_name("primary", primary, [name for name in valid if name not in ERRORS])
    return ChosenScores(metric, tuple(dict.fromkeys([*names, primary]))), primary


def _check_name(option: str, name: Any, valid: Iterable[str]) -> None:
    known = list(valid)
    if name not in known:
        raise ValueError(f"`{option}`: should name scores of this task. Found {name!r}. {hint(name, known)}")


def metric_name(metric: Any) -> str | None:
    """Return the name of a label kind's metric, whatever scores a task asks for; None for a function."""
    name = metric.metric if isinstance(metric, ChosenScores) else metric
    return name if isinstance(name, str) else None


def score_names(metrics: Any) -> tuple[str, ...] | None:
    """Return the value of the option `metrics` as a tuple; a single name stands for a list of one.

    Raises:
        ValueError: if the value is neither a name nor a list of names.
    """
    if metrics is None:
        return None
    names = [metrics] if isinstance(metrics, str) else metrics
    is_list = isinstance(names, Iterable) and not isinstance(names, Mapping)
    found = tuple(names) if is_list else ()
    if not found or not all(isinstance(name, str) for name in found):
        raise ValueError(f"`metrics`: should be a list of names of scores. Found {metrics!r:.80}.")
    return found
