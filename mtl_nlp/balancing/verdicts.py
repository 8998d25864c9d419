"""A verdict on the conflict of each two tasks, from the measurements of a training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFLICT, UNCLEAR, AGREEMENT, TOO_FEW = "conflict", "no clear conflict", "agreement", "too few measurements"
"""The verdicts."""

_FEWEST = 5
"""The number of measurements below which there is no verdict."""

_LEVEL = 0.95


class Verdict(NamedTuple):
    """The conflict of two tasks over a training.

    Attributes:
        word: `conflict` if the interval is below 0, `agreement` if it is above 0, `no clear conflict` if 0 is inside,
            and `too few measurements` below five of them.
        mean: the mean cosine; None without measurements.
        low: the lower end of the 95 % interval of the mean cosine; None below five measurements.
        high: the upper end.
        measured: the number of measurements in which both tasks had rows.
    """

    word: str
    mean: float | None
    low: float | None
    high: float | None
    measured: int

    def interval(self) -> str:
        """Return the interval as text with two decimals; empty without an interval."""
        return "" if self.low is None or self.high is None else f"{cosine_text(self.low)} to {cosine_text(self.high)}"


def verdict_of(cosines: Sequence[float | None]) -> Verdict:
    """Judge the cosines of the gradients of two tasks by Student's t interval of their mean.

    The measurements are many steps apart, so they count as independent.

    Args:
        cosines: the cosine of each measurement; None where a task had no rows.
    """
    from scipy import stats  # takes long to import

    known = np.array([value for value in cosines if value is not None], dtype=float)
    if len(known) < _FEWEST:
        return Verdict(TOO_FEW, float(known.mean()) if len(known) else None, None, None, len(known))
    mean, error = float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))
    margin = float(stats.t.ppf(0.5 + _LEVEL / 2.0, len(known) - 1)) * error
    low, high = max(mean - margin, -1.0), min(mean + margin, 1.0)
    word = CONFLICT if high < 0.0 else AGREEMENT if low > 0.0 else UNCLEAR
    return Verdict(word, mean, low, high, len(known))


def describe_conflict(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the conflict of each two tasks, the strongest conflict first.

    Args:
        content: the content of `conflict.json`, see `mtl_nlp.balancing.conflict.Conflict`.
    """
    tasks, found = content["tasks"], []
    for a, b in itertools.combinations(range(len(tasks)), 2):
        verdict = verdict_of([each["cosine"][a][b] for each in content["measurements"]])
        shown = "" if verdict.mean is None else f", mean cosine of gradients {cosine_text(verdict.mean)}"
        interval = f" (95 % interval {verdict.interval()})" if verdict.interval() else ""
        text = f"{tasks[a]} and {tasks[b]}: {verdict.word}{shown}{interval}, {verdict.measured} measurements"
        found.append((verdict.mean if verdict.mean is not None else 1.0, text))
    return [text for _, text in sorted(found, key=lambda each: each[0])]


def cosine_text(value: float) -> str:
    """Return a cosine with its sign and two decimals, such as `−0.12`; `0.00` has no sign."""
    text = f"{value:+.2f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")
