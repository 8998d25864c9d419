"""Measure the coverage of the intervals of a comparison: python scripts/check_intervals.py

Texts and runs are drawn from a model with a known difference. A label of run r of side s in text i is correct if

    base_s + seed · a_sr + shared · c_i + side · d_si + own · e_sri > 0

where a, c, d and e are standard normal: the effects of the run, of the text on all runs, of the text on the runs of one
side, and of the text on one run (the interaction). The true difference of the sides follows from the normal
distribution. A scenario sets which effects are large.

- coverage: the share of 95 % intervals that contain the true difference, with its standard error in points.
- naive: the same, if the variance of the bootstrap were added to that of the seeds without removing the interaction.
- width: the mean width of the intervals, in points.
- false: the share of `helped` and `hurt` if there is no difference.
- power: the share of `helped` if the true difference is the median of the reported smallest detectable difference.

The script needs neither a network nor data. 2,000 draws of a scenario take 1 to 6 minutes on one core, and a third of
that with `--no-power`; `--only "accuracy 3 300"` measures a part of the scenarios.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from mtl_nlp.messages import table
from mtl_nlp.transfer.resampling import AlignedRuns, draw_counts
from mtl_nlp.transfer.statistics import Difference, Spread, smallest_variance, spread_of
from mtl_nlp.transfer.sufficient import TextScores, text_scores

GOLD = 2
"""Gold labels per text of a multi-label task."""
WRONG = 0.5
"""The probability that a wrong label replaces a gold label that was not found."""


@dataclass(frozen=True)
class Scenario:
    """A model of scores; the module's docstring defines the effects."""

    name: str
    texts: int
    runs: int
    metric: str = "accuracy"
    seed: float = 0.0
    shared: float = 1.0
    side: float = 0.0
    own: float = 0.0
    bases: tuple[float, float] = (1.3, 1.2)

    @property
    def of_texts(self) -> float:
        """The standard deviation of a label's latent value for a given run."""
        return math.sqrt(self.shared**2 + self.side**2 + self.own**2)

    def expected(self, base: float) -> float:
        """Return the expected score of a side: the mean over runs of the score on infinitely many texts."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(61)
        hits = stats.norm.cdf((base + self.seed * nodes) / self.of_texts)
        scores = hits
        if self.metric == "f1":
            scores = 2 * hits / (hits + WRONG * (1 - hits) + 1)
        return float(scores @ weights / weights.sum())

    @property
    def delta(self) -> float:
        """The true difference."""
        return self.expected(self.bases[0]) - self.expected(self.bases[1])

    def with_delta(self, delta: float) -> Scenario:
        """Return the scenario with the base of side A that gives a true difference."""
        low, high = self.bases[1], self.bases[1] + 20 * self.of_texts
        for _ in range(60):
            middle = (low + high) / 2
            above = self.expected(middle) - self.expected(self.bases[1]) > delta
            low, high = (low, middle) if above else (middle, high)
        return replace(self, bases=(low, self.bases[1]))

    def draw(self, rng: np.random.Generator) -> AlignedRuns:
        """Draw texts and runs."""
        common = self.shared * rng.normal(size=self.texts)
        scores = []
        for base in self.bases:
            of_side = common + self.side * rng.normal(size=self.texts)
            for _ in range(self.runs):
                level = base + self.seed * rng.normal()
                scores.append(self._score(level + of_side, rng))
        units = [("simulated", row) for row in range(self.texts)]
        return AlignedRuns(units, scores, (self.runs, self.runs))

    def _score(self, latent: np.ndarray, rng: np.random.Generator) -> TextScores:
        if self.metric == "accuracy":
            correct = latent + self.own * rng.normal(size=self.texts) > 0
            return text_scores("classification", "accuracy", correct.tolist(), [True] * self.texts)
        found = latent[:, None] + self.own * rng.normal(size=(self.texts, GOLD)) > 0
        wrong = ~found & (rng.random(size=found.shape) < WRONG)
        predictions = [
            [*np.flatnonzero(hits).tolist(), *(GOLD + np.flatnonzero(errors)).tolist()]
            for hits, errors in zip(found, wrong, strict=True)
        ]
        return text_scores("multi_label", "micro_f1", predictions, [list(range(GOLD))] * self.texts)


EFFECTS: dict[str, dict[str, Any]] = {
    "seeds": {"seed": 0.15},
    "texts": {"shared": 0.5, "side": 1.0},
    "interaction": {"own": 0.7},
    "interaction, seeds": {"own": 0.7, "seed": 0.06},
    "all": {"seed": 0.06, "side": 0.4, "own": 0.6},
    "all, nearly correct": {"seed": 0.1, "side": 0.3, "own": 0.5, "bases": (2.3, 2.0)},
}
SCENARIOS = [
    Scenario(name, texts, runs, metric, **effects)
    for metric, sizes in (("accuracy", (50, 300, 2000)), ("f1", (100, 500)))
    for runs in (2, 3, 5)
    for texts in sizes
    for name, effects in EFFECTS.items()
]


class Resampler:
    """The differences of draws; all draws have the same resamples, as they have the same texts.

    Args:
        scenario: the scenario.
        resamples: the number of bootstrap resamples.
    """

    def __init__(self, scenario: Scenario, resamples: int) -> None:
        units = [("simulated", row) for row in range(scenario.texts)]
        self._counts = np.concatenate([*draw_counts(units, resamples, 0)])
        self._scenario = scenario

    def compare(self, runs: AlignedRuns) -> tuple[Difference, Spread]:
        """Return the difference, and the spread by the naive sum of variances."""
        observed, resampled = runs.observed(), runs.resampled(self._counts)
        texts, k = self._scenario.texts, self._scenario.runs
        delta = float(observed[:k].mean() - observed[k:].mean())
        spread = spread_of(observed, resampled, k, texts, floor=smallest_variance(texts))
        assert spread is not None
        p = spread.p_value(delta)
        whole = float((resampled[:, :k].mean(axis=1) - resampled[:, k:].mean(axis=1)).var())
        parts = [float(observed[:k].var(ddof=1)) / k, float(observed[k:].var(ddof=1)) / k, whole]
        degrees = [k - 1, k - 1, texts - 1]
        df = sum(parts) ** 2 / max(sum(part**2 / d for part, d in zip(parts, degrees, strict=True)), 1e-300)
        return Difference(delta, spread, p, p), Spread(parts[0] + parts[1], whole, max(df, 1e-3))


def measure(scenario: Scenario, draws: int, resamples: int, with_power: bool = True) -> dict[str, float]:
    """Return the figures of a scenario, as shares and differences from 0 to 1."""
    rng = np.random.default_rng([draws, scenario.texts, scenario.runs])
    resampler = Resampler(scenario, resamples)

    def compared(of: Scenario) -> list[tuple[Difference, Spread]]:
        return [resampler.compare(of.draw(rng)) for _ in range(draws)]

    found = compared(scenario)
    errors = np.array([abs(difference.delta - scenario.delta) for difference, _ in found])
    halves = np.array([difference.spread.half_width() for difference, _ in found if difference.spread])
    figures = {
        "coverage": float((errors <= halves).mean()),
        "naive": float((errors <= [spread.half_width() for _, spread in found]).mean()),
        "width": float(2 * halves.mean()),
        "bias": float(np.mean([difference.delta for difference, _ in found]) - scenario.delta),
    }
    if with_power:
        smallest = float(np.median([difference.smallest for difference, _ in found]))
        null, alternative = compared(scenario.with_delta(0.0)), compared(scenario.with_delta(smallest))
        figures["false"] = float(np.mean([d.word != "no clear difference" for d, _ in null]))
        figures["power"] = float(np.mean([d.word == "helped" for d, _ in alternative]))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--only", default="", help="a part of the names of scenarios such as `f1`")
    parser.add_argument("--no-power", action="store_true", help="measure the coverage only")
    options = parser.parse_args(arguments)
    header = ["metric", "runs", "texts", "scenario", "coverage", "±", "naive", "width", "bias", "false", "power"]
    print(*header, sep="\t", flush=True)
    rows: list[list[object]] = []
    for scenario in SCENARIOS:
        first = [scenario.metric, scenario.runs, scenario.texts, scenario.name]
        if options.only not in " ".join(map(str, first)):
            continue
        figures = measure(scenario, options.draws, options.resamples, not options.no_power)
        error = math.sqrt(figures["coverage"] * (1 - figures["coverage"]) / options.draws)
        rest = [f"{100 * figures[name]:.2f}" for name in ("width", "bias", "false", "power") if name in figures]
        shares = [f"{100 * value:.1f}" for value in (figures["coverage"], error, figures["naive"])]
        rows.append([*first, *shares, *rest])
        print(*rows[-1], sep="\t", flush=True)
    print(table(header[: len(rows[0])], rows))


if __name__ == "__main__":
    main()
