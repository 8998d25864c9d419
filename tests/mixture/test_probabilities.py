from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.mixture.probabilities import temperature_probabilities

INF = float("inf")

SIZES = np.array([7, 100, 10_001])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0, INF])
def test_probabilities_are_sizes_to_the_power_of_one_over_the_temperature(temperature):
    expected = SIZES ** (1 / temperature)
    np.testing.assert_allclose(temperature_probabilities(SIZES, temperature), expected / expected.sum(), rtol=1e-12)


def test_low_temperature_with_large_sizes_does_not_overflow():
    probabilities = temperature_probabilities(np.array([10**9, 10**9, 1]), 0.01)
    np.testing.assert_allclose(probabilities, [0.5, 0.5, 0.0])


def test_surplus_of_limited_datasets_goes_proportionally_to_the_others():
    probabilities = temperature_probabilities(np.array([60, 30, 10]), 1.0, np.array([0.3, 1.0, 1.0]))
    np.testing.assert_allclose(probabilities, [0.3, 0.7 * 30 / 40, 0.7 * 10 / 40], rtol=1e-12)


def test_dataset_raised_above_its_limit_is_limited_in_the_next_round():
    probabilities = temperature_probabilities(np.ones(5), 1.0, np.array([0.1, 0.22, 0.225, 0.3, 0.3]))
    np.testing.assert_allclose(probabilities, [0.1, 0.22, 0.225, 0.2275, 0.2275], rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, INF])
def test_limits_that_sum_to_1_become_the_probabilities(temperature):
    limits = SIZES / SIZES.sum()
    np.testing.assert_allclose(temperature_probabilities(SIZES, temperature, limits), limits, rtol=1e-12)


def test_unreached_limits_change_nothing():
    limited = temperature_probabilities(SIZES, 2.0, np.full(3, INF))
    np.testing.assert_allclose(limited, temperature_probabilities(SIZES, 2.0), rtol=1e-12)


def test_unlimited_datasets_keep_their_proportions_for_any_limits():
    rng = np.random.default_rng(0)
    for _ in range(500):
        number = int(rng.integers(1, 30))
        sizes, temperature = rng.integers(1, 10_000, number), float(rng.uniform(0.5, 10.0))
        limits = rng.uniform(1e-6, 1.0, number)
        limits *= rng.choice([1.0, 1.01, 2.0]) / limits.sum()
        weights = temperature_probabilities(sizes, temperature)
        probabilities = temperature_probabilities(sizes, temperature, limits)
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
        assert (probabilities <= limits * (1 + 1e-9)).all()
        # p_d = min(limit, c · weight) for one c: no dataset is limited without need.
        scale = max(probabilities / weights)
        np.testing.assert_allclose(probabilities, np.minimum(limits, scale * weights), rtol=1e-9)
