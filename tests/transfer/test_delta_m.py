from __future__ import annotations

import numpy as np
import pytest
from runs_of_predictions import run_of, simulation

from mtl_nlp import Regression, TextClassification
from mtl_nlp.errors import DataError
from mtl_nlp.transfer.delta_m import delta_m, delta_m_of_runs, delta_m_of_scores
from mtl_nlp.transfer.statistics import compare_sides

TASKS = {name: TextClassification(name=name, labels=["a", "b"]) for name in ("x", "y")}


def runs(share: float, number: int = 3, n: int = 200, dataset: str = "d", seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [run_of(np.where(rng.random(n) < share, "a", "b").tolist(), ["a"] * n, dataset) for _ in range(number)]


def test_the_value_is_vandenhendes_with_the_direction_of_each_score():
    values, reference = {"segmentation": 50.0, "depth": 0.9}, {"segmentation": 40.0, "depth": 1.0}
    assert delta_m_of_scores(values, reference, {"depth"}).value == pytest.approx((25 + 10) / 2)
    assert delta_m_of_scores(values, reference).value == pytest.approx((25 - 10) / 2)


@pytest.mark.parametrize("number", [0.0, -0.1, float("nan")])
def test_a_reference_that_is_not_above_zero_is_reported(number):
    result = delta_m_of_scores({"x": 0.5}, {"x": number})
    assert result.to_dict() == {"value": None, "low": None, "high": None}
    assert "task 'x'" in result.reason
    assert delta_m_of_scores({}, {}).reason


def test_one_task_has_the_relative_interval_of_its_difference():
    a, b = runs(0.9), runs(0.8, seed=1)
    result = delta_m({"x": a}, {"x": b}, {"x": TASKS["x"]})
    difference = compare_sides(a, b, TASKS["x"])
    reference = np.mean([np.mean([text.prediction == text.gold for text in run]) for run in b])
    assert result.value == pytest.approx(100 * difference.delta / reference)
    width = 100 * (difference.high - difference.low) / reference
    assert result.high - result.low == pytest.approx(width, rel=0.3)  # the reference itself varies, too


def test_tasks_of_the_same_texts_are_not_independent():
    a, b = runs(0.9), runs(0.8, seed=1)
    one = delta_m({"x": a}, {"x": b}, {"x": TASKS["x"]})
    same = delta_m({"x": a, "y": a}, {"x": b, "y": b}, TASKS)
    assert (same.value, same.low, same.high) == pytest.approx((one.value, one.low, one.high))
    other = {"y": runs(0.9, dataset="e", seed=2)}, {"y": runs(0.8, dataset="e", seed=3)}
    apart = delta_m({"x": a, **other[0]}, {"x": b, **other[1]}, TASKS)
    assert apart.high - apart.low < same.high - same.low


def test_tasks_with_labels_for_a_part_of_a_datasets_texts_are_compared():
    sides = [{"x": runs(0.9, seed=seed), "y": [run[:50] for run in runs(0.8, seed=seed + 2)]} for seed in (0, 1)]
    result = delta_m(*sides, TASKS)
    assert result.low < result.value < result.high
    assert result == delta_m(*sides, TASKS)


def test_one_seed_or_different_numbers_of_runs():
    one = {"x": runs(0.9, 1)}
    result = delta_m(one, one, {"x": TASKS["x"]})
    assert (result.value, result.low) == (0, None)
    assert "two seeds" in result.reason
    uneven = {"x": runs(0.9, 2), "y": runs(0.9, 3)}
    with pytest.raises(DataError, match="same number of runs"):
        delta_m(uneven, uneven, TASKS)


def test_an_undefined_score_gives_no_value():
    bad = {"x": [run_of([float("nan"), 1.0], [1.0, 2.0])] * 2}
    assert "task 'x'" in delta_m(bad, bad, {"x": Regression(name="x")}).reason


def test_intervals_of_three_seeds_cover_the_true_value_in_95_percent_of_draws():
    check = simulation()
    effects = check.EFFECTS["all"]
    scenarios = {
        "x": check.Scenario("x", 150, 3, **effects),
        "y": check.Scenario("y", 150, 3, **effects, bases=(0.5, 1)),
    }
    shares = [scenario.delta / scenario.expected(scenario.bases[1]) for scenario in scenarios.values()]
    rng = np.random.default_rng(0)
    draws = [{name: scenario.draw(rng) for name, scenario in scenarios.items()} for _ in range(300)]
    found = [delta_m_of_runs(draw, resamples=200) for draw in draws]
    assert np.mean([result.value for result in found]) == pytest.approx(100 * np.mean(shares), abs=0.6)
    # Two standard errors of 300 draws are 2.5 points.
    assert 0.91 <= np.mean([result.low <= 100 * np.mean(shares) <= result.high for result in found]) <= 0.99
