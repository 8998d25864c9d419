from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.mixture.turns import count_portions, next_turns, portions


def test_turns_follow_any_probabilities_to_within_one_turn():
    rng = np.random.default_rng(0)
    for trial in range(400):
        number = int(rng.integers(1, 101)) if trial % 2 else int(rng.integers(1, 6))
        rates = np.exp(rng.uniform(0, rng.choice([1, 5, 15]), number))
        if trial % 4 == 3:  # many equal datasets with turns due at the same time
            rates[3:] = rng.uniform(0.02, 0.2) * rates[:3].mean()
        rates /= rates.sum()
        largest = int(rng.choice([1, 2, 7, 50, 1600]))
        done, due = np.zeros(number, dtype=np.int64), np.zeros(number)
        for _ in range(40):
            count = largest if rng.random() < 0.8 else int(rng.integers(1, largest + 1))
            due = due + rates * count
            turns = next_turns(done, due, rates, count)
            assert turns.sum() == count
            assert turns.min() >= 0
            done = done + turns
            assert np.abs(done - due).max() < 1


def test_datasets_are_less_than_one_turn_off_for_integer_shares():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = np.bincount(rng.integers(0, 12, 64))
        rates = weights[weights > 0] / 64  # exact in floating point
        done, count = np.zeros(len(rates), dtype=np.int64), int(rng.integers(1, 40))
        for number in range(1, 65):
            due = rates * (count * number)
            done = done + next_turns(done, due, rates, count)
            assert np.abs(done - due).max() < 1
        assert done.tolist() == due.tolist()


def test_overdue_turns_precede_the_soonest_turns():
    rates = np.array([0.5, 0.25, 0.25])
    turns = next_turns(np.array([0, 0, 0]), 2 * rates, rates, 2)
    assert turns.tolist() == [1, 1, 0]
    turns = next_turns(turns, 4 * rates, rates, 2)
    assert turns.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("total", "size", "least", "expected"),
    [
        (10, 5, 1, [5, 5]),
        (11, 5, 1, [5, 5, 1]),
        (11, 5, 2, [5, 6]),
        (12, 5, 2, [5, 5, 2]),
        (3, 5, 1, [3]),
        (3, 5, 4, [3]),
        (5, 5, 5, [5]),
        (1, 1, 1, [1]),
    ],
)
def test_all_portions_except_the_last_are_full(total, size, least, expected):
    assert portions(total, size, least) == expected
    assert count_portions(total, size, least) == len(expected)


def test_portions_of_portions_equal_portions_of_all_rows():
    for world in (1, 2, 3, 8):
        for total in range(world, 300):
            step = world * 4
            windows = portions(total, step * 3, world)
            assert sum(windows) == total
            assert [size for window in windows for size in portions(window, step, world)] == portions(
                total, step, world
            )
