"""Differences between two sides with intervals that cover both sources of chance: seeds and test texts.

A score has four parts: the side's expected score, an effect of the run (the seed), an effect of the texts that is
common to all runs of the side, and an interaction of run and texts (each run errs on texts of its own). For the mean
over k runs on n texts, the variance is

    run / k + texts / n + interaction / (n k)

- The variance S² between the scores of a side's runs estimates run + interaction / n, so S² / k covers two of the
  parts.
- The bootstrap over texts, with the same resample for the runs of both sides, estimates the covariance matrix of all
  runs' scores over samples of texts. Its diagonal is texts / n + interaction / n, and its entries for two different
  runs of a side are texts / n alone. The variance of the difference of the means, as a bootstrap gives it, therefore
  contains interaction / (n k) a second time. Where runs disagree at random on texts, which is the usual case, intervals
  from the sum of both variances would cover 99 % instead of 95 %. The entries for different runs do not contain this
  part, so texts / n of the difference A - B is computed from these entries alone: mean of A's pairs of runs + mean of
  B's pairs - 2 × mean of A with B.

A bootstrap over three seeds alone would undercover badly; t with k - 1 degrees of freedom does not.

Sources: Satterthwaite (1946) for the degrees of freedom of a sum of variances; Efron & Tibshirani (1993) for the
bootstrap; Dror et al. (2018) for paired resampling of texts in NLP; Bouthillier et al. (2021) for seeds as a source of
variance; Holm (1979). `scripts/check_intervals.py` measures the coverage of the intervals: 94 to 97 % with 3 or 5
seeds and 50 to 2,000 texts, and 93 to 98 % with 2 seeds, for seeds, texts or their interaction as the main source of
chance. Intervals cover more, up to 99.9 %, where the sides differ on about one text (see `smallest_variance`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.resampling import RESAMPLES, SLOW_RESAMPLES, AlignedRuns, Runs, align_runs, draw_counts

LEVEL = 0.05
"""The significance level of the words; intervals have the level 1 - 0.05 = 95 %."""
POWER = 0.8
"""The probability with which the smallest detectable difference would be detected."""


class Spread(NamedTuple):
    """The variance of a difference.

    Attributes:
        seeds: the part from seeds, with the interaction of seeds and texts.
        texts: the part from texts.
        df: the degrees of freedom by Satterthwaite.
    """

    seeds: float
    texts: float
    df: float

    @property
    def se(self) -> float:
        """The standard error of the difference."""
        return float(np.sqrt(self.seeds + self.texts))

    def half_width(self) -> float:
        """Return half the width of the 95 % interval."""
        return float(stats.t.ppf(1 - LEVEL / 2, self.df) * self.se)

    def p_value(self, delta: float) -> float:
        """Return the two-sided p of a difference under the hypothesis of no difference."""
        return float(2 * stats.t.sf(abs(delta) / self.se, self.df))

    def smallest(self) -> float:
        """Return the smallest difference that is detected with a probability of `POWER`, (t_.975 + t_.80) · se."""
        return float((stats.t.ppf(1 - LEVEL / 2, self.df) + stats.t.ppf(POWER, self.df)) * self.se)


@dataclass(frozen=True)
class Difference:
    """The difference of a task's primary score between two sides, A - B.

    Attributes:
        delta: the mean over A's runs minus the mean over B's runs; NaN if a run's score is not defined.
        spread: its variance, or None if the data give none.
        p: the p of the hypothesis of no difference, or None.
        p_holm: p adjusted for the number of tasks compared, or None.
        reason: a sentence about why there is no interval, or an empty string.
    """

    delta: float
    spread: Spread | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % interval, which is not adjusted for the number of tasks."""
        return None if self.spread is None else self.delta - self.spread.half_width()

    @property
    def high(self) -> float | None:
        """The upper end of the 95 % interval."""
        return None if self.spread is None else self.delta + self.spread.half_width()

    @property
    def smallest(self) -> float | None:
        """The smallest difference that these data would show with a probability of 80 %."""
        return None if self.spread is None else self.spread.smallest()

    @property
    def word(self) -> str | None:
        """`helped` or `hurt` if the adjusted p is below 0.05, `no clear difference` otherwise, None without a p."""
        if self.p_holm is None:
            return None
        if self.p_holm >= LEVEL:
            return "no clear difference"
        return "helped" if self.delta > 0 else "hurt"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `comparison.json`, with None for numbers that are not defined."""
        spread = self.spread
        return {
            "delta": self.delta if np.isfinite(self.delta) else None,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "p_holm": self.p_holm,
            "smallest": self.smallest,
            "df": None if spread is None else spread.df,
            "variance": None if spread is None else {"seeds": spread.seeds, "texts": spread.texts},
            "word": self.word,
        }


def compare_sides(a: Runs, b: Runs, task: Task, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Compare the primary score of a task between two sides, each with one or several runs on the same texts.

    The result is that of a single comparison: `p_holm` equals `p`. `adjust` applies Holm's method to several tasks.

    Args:
        a: the predictions of each run of side A.
        b: the predictions of each run of side B. The runs of the sides are not paired.
        task: the task.
        resamples: the number of bootstrap resamples; at most `SLOW_RESAMPLES` for a score without sufficient
            statistics.
        seed: the seed of the resamples. The result is a function of the predictions and the seed.

    Raises:
        DataError: if the runs differ in their texts or gold labels, or labels do not fit the task.
    """
    return difference_of(align_runs(a, b, task), resamples=resamples, seed=seed)


def difference_of(aligned: AlignedRuns, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Return the difference of two sides whose runs are aligned; see `compare_sides`."""
    runs, texts = aligned.runs, len(aligned.units)
    observed = aligned.observed()
    delta = float(observed[: runs[0]].mean() - observed[runs[0] :].mean())
    if reason := reason_without_interval(observed, runs, texts):
        return Difference(delta, reason=reason)
    resamples = resamples if aligned.is_fast else min(resamples, SLOW_RESAMPLES)
    resampled = np.concatenate([aligned.resampled(counts) for counts in draw_counts(aligned.units, resamples, seed)])
    spread = spread_of(observed, resampled, runs[0], texts, floor=smallest_variance(texts))
    if spread is None:
        return Difference(delta, reason="The score is not defined on most resamples of the texts.")
    p = spread.p_value(delta)
    return Difference(delta, spread, p, p)


def reason_without_interval(observed: np.ndarray, runs: tuple[int, int], texts: int) -> str:
    """Return a sentence about why runs give no interval, or an empty string.

    Args:
        observed: the score of each run.
        runs: the number of runs of each side.
        texts: the number of texts.
    """
    if not np.isfinite(observed).all():
        undefined = int((~np.isfinite(observed)).sum())
        return f"The score is not defined for {undefined} of {len(observed)} runs."
    if min(runs) < 2:
        return "One seed gives no interval: train with at least two seeds per side."
    return "" if texts > 1 else "One text gives no interval."


def smallest_variance(texts: int) -> float:
    """Return the smallest variance of a difference of scores between 0 and 1 on n texts, (1 / 2n)².

    If no text or run differs, the estimate is 0, although the data do not show that none ever would. Half a text's
    share is the resolution of n texts, as in a continuity correction. Without this floor, intervals for 50 texts, of
    which nearly all are correct in every run, cover as few as 61 % of true differences; with the floor they cover up
    to 99.9 %. A floor of a text's share widens more intervals: 98.9 instead of 96.8 % if only seeds differ.
    """
    return 1 / (2 * texts) ** 2


def spread_of(observed: np.ndarray, resampled: np.ndarray, runs_a: int, texts: int, *, floor: float) -> Spread | None:
    """Return the variance of the difference of two sides' mean scores; the module's docstring has the derivation.

    Args:
        observed: the score of each run on all texts, shape (runs,), side A before side B, at least 2 runs per side.
        resampled: the score of each run on each resample of the texts, shape (B, runs).
        runs_a: the number of A's runs.
        texts: n, the number of texts.
        floor: the smallest variance, see `smallest_variance`.

    Returns:
        The variance, or None if scores are not defined on more than half of the resamples.
    """
    defined = resampled[np.isfinite(resampled).all(axis=1)]
    if 2 * len(defined) < len(resampled) or len(defined) < 2:
        return None
    a, b = slice(None, runs_a), slice(runs_a, None)
    # n / (n - 1), since the variance over resamples of n texts is that of the n texts, divided by n instead of n - 1.
    covariance = np.cov(defined.T) * texts / (texts - 1)
    between = _mean_of_pairs(covariance[a, a]) + _mean_of_pairs(covariance[b, b]) - 2 * covariance[a, b].mean()
    of_seeds = [float(scores.var(ddof=1) / len(scores)) for scores in (observed[a], observed[b])]
    seeds = sum(of_seeds)
    # The estimate for texts has noise and is below 0 at times, where texts matter little.
    of_texts = max(float(between), 0.0, floor - seeds)
    parts = [*of_seeds, of_texts]
    degrees = [runs_a - 1, len(observed) - runs_a - 1, texts - 1]
    df = sum(parts) ** 2 / sum(part**2 / degree for part, degree in zip(parts, degrees, strict=True))
    return Spread(seeds, of_texts, float(df))


def _mean_of_pairs(covariance: np.ndarray) -> float:
    """Return the mean covariance of two different runs."""
    runs = len(covariance)
    return (covariance.sum() - np.trace(covariance)) / (runs * (runs - 1))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p values adjusted by Holm's step-down method (1979), by name; None stays None and does not count."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


def adjust(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """Return the differences of a pair of sides by task, with `p_holm` adjusted over the tasks."""
    adjusted = holm({name: difference.p for name, difference in differences.items()})
    return {name: replace(difference, p_holm=adjusted[name]) for name, difference in differences.items()}
