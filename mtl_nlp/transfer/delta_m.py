"""Δm, the mean relative difference of all tasks' scores to those of a reference, in percent (Vandenhende et al., 2021).

    Δm = 100 / T · Σ_t (-1)^{l_t} (M_t - B_t) / B_t,    l_t = 1 if a lower score is better

M_t and B_t are means over runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.resampling import RESAMPLES, SLOW_RESAMPLES, AlignedRuns, Runs, Unit, align_runs, draw_counts
from mtl_nlp.transfer.statistics import reason_without_interval, smallest_variance, spread_of


@dataclass(frozen=True)
class DeltaM:
    """Δm in percent with its 95 % interval.

    Attributes:
        value: Δm, or None if it is not defined.
        low: the lower end of the interval, or None.
        high: the upper end of the interval, or None.
        reason: a sentence about why there is no value or interval, or an empty string.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, float | None]:
        """Return the entry of `comparison.json`."""
        return {"value": self.value, "low": self.low, "high": self.high}


def delta_m_of_scores(
    values: Mapping[str, float], reference: Mapping[str, float], lower_is_better: Collection[str] = ()
) -> DeltaM:
    """Return Δm of one score per task, without an interval.

    Args:
        values: the mean score of each task.
        reference: the mean score of each task on the reference side.
        lower_is_better: the tasks for which a lower score is better.
    """
    if not values:
        return DeltaM(None, reason="There is no task with a score.")
    if reason := _undefined(values, reference):
        return DeltaM(None, reason=reason)
    signs = {task: -1.0 if task in lower_is_better else 1.0 for task in values}
    shares = [signs[task] * (values[task] - reference[task]) / reference[task] for task in values]
    return DeltaM(float(100 * np.mean(shares)))


def _undefined(values: Mapping[str, float], reference: Mapping[str, float]) -> str:
    for task, value in values.items():
        if not (np.isfinite(value) and np.isfinite(reference[task])):
            return f"Δm is not defined: the score of task {task!r} is not defined in every run."
        if reference[task] <= 0:  # a correlation can be negative
            return f"Δm is not defined: the reference score of task {task!r} is {reference[task]:.3g}, not above 0."
    return ""


def delta_m(
    sides: Mapping[str, Runs],
    reference: Mapping[str, Runs],
    tasks: Mapping[str, Task],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> DeltaM:
    """Return Δm of the tasks' primary scores, of which a higher one is better, with an interval as in `statistics`.

    The interval uses the linear approximation of Δm (the delta method): the score of a run is the weighted sum of its
    tasks' scores, with the derivatives dΔm / dM_t and dΔm / dB_t as weights. Tasks with the same texts share the
    resamples of these texts, and run i of a side is the same run for all tasks, so the interval includes the
    dependence between tasks.

    Args:
        sides: for each task, the predictions of each run of the side.
        reference: for each task, the predictions of each run of the reference.
        tasks: the tasks by name.
        resamples: the number of bootstrap resamples.
        seed: the seed of the resamples.

    Raises:
        DataError: if runs differ in their texts or gold labels, or tasks of a side in their number of runs.
    """
    aligned = {name: align_runs(sides[name], reference[name], task) for name, task in tasks.items()}
    return delta_m_of_runs(aligned, resamples=resamples, seed=seed)


def delta_m_of_runs(aligned: Mapping[str, AlignedRuns], *, resamples: int = RESAMPLES, seed: int = 0) -> DeltaM:
    """Return Δm of tasks whose runs are aligned; see `delta_m`."""
    observed = {name: runs.observed() for name, runs in aligned.items()}
    values = {name: float(scores[: aligned[name].runs[0]].mean()) for name, scores in observed.items()}
    references = {name: float(scores[aligned[name].runs[0] :].mean()) for name, scores in observed.items()}
    result = delta_m_of_scores(values, references)
    if result.value is None:
        return result
    numbers = {runs.runs for runs in aligned.values()}
    if len(numbers) > 1:
        raise DataError(f"Δm needs all tasks of a side to have the same number of runs. Found {sorted(numbers)}.")
    (runs,) = numbers
    units = sorted({unit for task in aligned.values() for unit in task.units})
    weights = {name: _weights(values[name], references[name], runs, len(aligned)) for name in aligned}
    total = np.sum([weights[name] * observed[name] for name in aligned], axis=0)
    if reason := reason_without_interval(total, runs, len(units)):
        return DeltaM(result.value, reason=reason)
    if not all(task.is_fast for task in aligned.values()):
        resamples = min(resamples, SLOW_RESAMPLES)
    resampled = _resampled_totals(aligned, weights, units, resamples, seed)
    # The smallest variance of each task's difference, in percent of the reference.
    floors = {name: smallest_variance(len(task.units)) for name, task in aligned.items()}
    floor = sum((100 / len(aligned) / references[name]) ** 2 * floors[name] for name in aligned)
    spread = spread_of(total, resampled, runs[0], len(units), floor=floor)
    if spread is None:
        return DeltaM(result.value, reason="A score is not defined on most resamples of the texts.")
    half = spread.half_width()
    return DeltaM(result.value, result.value - half, result.value + half)


def _weights(value: float, reference: float, runs: tuple[int, int], tasks: int) -> np.ndarray:
    """Return the factor of each run's score: dΔm / dM for the side, -dΔm / dB for the reference.

    The spread of a difference takes the reference's mean with a minus sign.
    """
    return 100 / tasks * np.repeat([1 / reference, value / reference**2], runs)


def _resampled_totals(
    aligned: Mapping[str, AlignedRuns],
    weights: Mapping[str, np.ndarray],
    units: list[Unit],
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Return the weighted sum of the tasks' scores for each resample and run, shape (B, runs)."""
    places = {unit: place for place, unit in enumerate(units)}
    columns = {name: [places[unit] for unit in runs.units] for name, runs in aligned.items()}
    return np.concatenate(
        [
            np.sum([weights[name] * runs.resampled(counts[:, columns[name]]) for name, runs in aligned.items()], axis=0)
            for counts in draw_counts(units, resamples, seed)
        ]
    )
