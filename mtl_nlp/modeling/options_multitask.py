"""Checks and values of the options of tasks that concern their loss and their predictions. Imports no torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from .hints_multitask import hint
from .text_kinds_multitask import THRESHOLD

BALANCED: Final = "balanced"
"""The class weights that are computed from the training labels."""
TUNED: Final = "tuned"
"""The thresholds that are chosen on the validation rows after training."""


def number_option(task: str, key: str, value: Any, *, least: float | None = 0.0) -> float | None:
    """Return an option that is a finite number, or None if the option is not given.

    Args:
        task: the name of the task.
        key: the name of the option.
        value: the value.
        least: the smallest valid number; None for no limit.

    Raises:
        ValueError: if the value is not a finite number, or too small.
    """
    if value is None:
        return None
    if not is_finite_number(value) or (least is not None and value < least):
        rule = "a finite number" if least is None else f"a finite number of at least {least:g}"
        raise ValueError(f"Task {task!r}: `{key}` should be {rule}. Found {value!r:.80}.")
    return float(value)


def threshold_option(task: str, value: Any) -> float | str:
    """Return a threshold of probabilities.

    Raises:
        ValueError: if the value is neither `tuned` nor a number above 0 and below 1.
    """
    if value == TUNED:
        return TUNED
    if not is_finite_number(value) or not 0.0 < value < 1.0:
        raise ValueError(
            f"Task {task!r}: `threshold` should be a number above 0 and below 1, or `{TUNED}`. Found {value!r:.80}."
        )
    return float(value)


def weights_option(
    task: str, labels: Sequence[str], key: str, value: Any, *, words: Sequence[str] = (BALANCED,)
) -> str | dict[str, float] | None:
    """Return an option that gives labels numbers, with the labels as text.

    Args:
        task: the name of the task.
        labels: the label space; empty if it is not known.
        key: the name of the option.
        value: a mapping from labels to numbers, one of the words, or None.
        words: the valid values that are not mappings.

    Raises:
        ValueError: if the value has a different type, a number is not finite or below 0, or a label is unknown.
    """
    if value is None or (isinstance(value, str) and value in words):
        return value
    if not isinstance(value, Mapping) or not all(is_finite_number(each) and each >= 0 for each in value.values()):
        rule = " or ".join([*words, "a map from labels to finite numbers of at least 0"])
        raise ValueError(f"Task {task!r}: `{key}` should be {rule}. Found {value!r:.80}.")
    found = {str(label): float(each) for label, each in value.items()}
    if labels and (unknown := next((label for label in found if label not in labels), None)) is not None:
        raise ValueError(
            f"Task {task!r}: `{key}` should name labels of the task. Found {unknown!r:.80}. {hint(unknown, labels)}"
        )
    return found


def weights_in_use(
    option: str | Mapping[str, float] | None, balanced: Mapping[str, float] | None
) -> Mapping[str, float] | None:
    """Return the weights of labels for an option and the weights that were computed for it; None for equal weights."""
    return balanced if isinstance(option, str) else option


def best_threshold(scores: Sequence[float], is_positive: Sequence[bool]) -> float:
    """Return the threshold of probabilities with the highest F1.

    The threshold is half way between two probabilities. Among thresholds with the same F1, the nearest to `THRESHOLD`
    is chosen, and `THRESHOLD` itself if no row is positive.

    Args:
        scores: the probability of each row.
        is_positive: whether each row has the class.
    """
    truth = np.asarray(is_positive, dtype=bool)
    values = np.asarray(scores, dtype=float)
    order = np.argsort(-values, kind="stable")
    ranked, hits = values[order], np.cumsum(truth[order])
    f1 = 2.0 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    lower = np.append(ranked[1:], 0.0)
    middle = np.clip(0.5 * (ranked + lower), math.ulp(0.0), 1.0 - math.ulp(1.0))
    is_cut = ranked > lower  # rows with equal probabilities are predicted together
    if not truth.any() or not is_cut.any():
        return THRESHOLD
    best = f1[is_cut].max()
    candidates = [
        THRESHOLD if low < THRESHOLD <= high else float(cut)
        for low, high, cut, score in zip(lower, ranked, middle, f1, strict=True)
        if high > low and score == best
    ]
    return min(candidates, key=lambda cut: abs(cut - THRESHOLD))


def is_finite_number(value: Any) -> bool:
    """Return whether a value is a finite number. A boolean does not count, nor does an integer beyond every float."""
    # A comparison, since `math.isfinite` fails for such an integer.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
