from __future__ import annotations

import pytest

from mtl_nlp.errors import CommandError
from mtl_nlp.transfer import affinity_costs
from mtl_nlp.transfer.affinity_costs import PairTimes, interval_of, plan_steps, recipe_steps, share_that_fits


def test_a_short_training_has_at_least_twenty_measurements():
    assert [interval_of(steps) for steps in (4, 20, 40, 100, 300)] == [1, 1, 2, 5, 5]
    assert all(steps // interval_of(steps) >= min(steps, 20) for steps in range(1, 400))


def test_the_training_is_shortened_until_it_fits(run, monkeypatch):
    monkeypatch.setattr(affinity_costs, "_seconds_per_step", lambda run: 1.0)
    monkeypatch.setattr(affinity_costs, "_seconds_per_measurement", lambda run: 5.0)
    assert recipe_steps(run) == 4
    assert plan_steps(run, None, None) == (4, 1, 24.0, 4)
    assert plan_steps(run, 300, None) == (300, 5, 600.0, 300)
    found = plan_steps(run, 300, 300.0)
    assert (found.every, found.wanted) == (5, 300)
    assert 120 <= found.steps <= 135
    assert found.seconds <= 270.0
    few = plan_steps(run, 300, 140.0)
    assert few.seconds <= 126.0
    with pytest.raises(CommandError, match=r"20 steps with 20 measurements take about 2 min"):
        plan_steps(run, 300, 100.0)


def test_the_share_of_pairs_fits_into_the_budget():
    times = PairTimes(rows_per_second=100.0, start=10.0)
    share = share_that_fits(times, rows=100_000.0, runs=10, seconds=500.0, least=0.01)
    assert times.seconds(share * 100_000.0, 10) == pytest.approx(450.0)
    assert share_that_fits(times, 1000.0, 10, 5000.0, 0.01) == 1.0
    with pytest.raises(CommandError, match=r"^--budget: too short\. 10 trainings of 1\.0% of the recipe's length take"):
        share_that_fits(times, 100_000.0, 10, 110.0, 0.01)
