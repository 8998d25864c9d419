"""Effects of tasks on tasks, with intervals that say which of them are beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

HELPS, HURTS, UNCLEAR = "helps", "hurts", "unclear"
"""The words for an effect whose interval is above 0, below 0, or has 0 inside."""

_FEWEST = 5
"""The number of measurements below which there is no interval."""
_LEVEL = 0.95


class Effect(NamedTuple):
    """The effect of one task on another.

    Attributes:
        value: the mean effect; None if the effect was not measured.
        low: the lower end of the 95 % interval; None without an interval.
        high: the upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def word(self) -> str:
        """`helps` if the interval is above 0, `hurts` if it is below 0, `unclear` otherwise and without an interval."""
        if self.low is None or self.high is None:
            return UNCLEAR
        return HELPS if self.low > 0 else HURTS if self.high < 0 else UNCLEAR

    @property
    def counted(self) -> float:
        """The effect on which groups are chosen: 0 if it is not beyond chance."""
        return 0.0 if self.value is None or self.word == UNCLEAR else self.value

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `affinity.json`."""
        return {"value": self.value, "low": self.low, "high": self.high, "word": self.word}


Effects = Mapping[str, Mapping[str, Effect]]
"""Helping task -> task -> effect."""


def mean_effect(values: Sequence[float]) -> Effect:
    """Return the mean of measurements with Student's t interval of the mean.

    The measurements have rows of their own and are several steps apart, so they count as independent. A trend over the
    training widens the interval.

    Args:
        values: the value of each measurement; NaN where a task had no rows.
    """
    from scipy import stats  # takes long to import

    known = np.array(values, dtype=float)
    known = known[np.isfinite(known)]
    if len(known) < _FEWEST:
        return Effect(float(known.mean()) if len(known) else None)
    mean, error = float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))
    margin = float(stats.t.ppf(0.5 + _LEVEL / 2.0, len(known) - 1)) * error
    return Effect(mean, mean - margin, mean + margin)


def effects_of(tasks: Sequence[str], measurements: np.ndarray) -> dict[str, dict[str, Effect]]:
    """Return the mean effects of each task on each task, also on itself.

    Args:
        tasks: the names of the tasks.
        measurements: the measured effects, shape (measurements, helping tasks, tasks).
    """
    return {
        helper: {task: mean_effect(measurements[:, row, column].tolist()) for column, task in enumerate(tasks)}
        for row, helper in enumerate(tasks)
    }


def counted_matrix(tasks: Sequence[str], effects: Effects) -> np.ndarray:
    """Return the effects that are beyond chance as a matrix (helping tasks, tasks), with 0 for the others."""
    return np.array(
        [
            [0.0 if helper == task else effects[helper].get(task, Effect(None)).counted for task in tasks]
            for helper in tasks
        ]
    )
