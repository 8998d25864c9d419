from __future__ import annotations

import itertools

import numpy as np
import pytest

from mtl_nlp.transfer import grouping
from mtl_nlp.transfer.grouping import Group, best_groupings, chosen, gain_of

TASKS = ["a", "b", "c", "d", "e"]


def brute_force(effects: np.ndarray, number: int) -> float:
    """Return the gain of the best of all families of groups, each task served from its best group."""
    count = len(effects)
    every = [members for size in range(1, count + 1) for members in itertools.combinations(range(count), size)]
    best = -np.inf
    for family in itertools.combinations(every, number):
        gains = [
            max((gain_of(effects, members, [task]) for members in family if task in members), default=-np.inf)
            for task in range(count)
        ]
        best = max(best, sum(gains))
    return best


def random_effects(count: int, seed: int) -> np.ndarray:
    effects = np.random.default_rng(seed).normal(0.0, 1.0, (count, count))
    effects[np.abs(effects) < 0.5] = 0.0
    np.fill_diagonal(effects, 0.0)
    return effects


def test_two_related_tasks_are_one_group_and_an_unrelated_task_is_left_out():
    effects = np.array([[9.0, 0.4, 0.0], [0.3, 9.0, 0.0], [0.0, 0.0, 9.0]])
    one, two, three = best_groupings(["upos", "coarse", "noise"], effects, 5)
    assert one.groups == [Group(("upos", "coarse", "noise"), ("upos", "coarse", "noise"))]
    assert one.gain == pytest.approx(0.35)
    assert two.groups == [Group(("upos", "coarse"), ("upos", "coarse")), Group(("noise",), ("noise",))]
    assert two.gain == three.gain == pytest.approx(0.7)
    assert chosen([one, two, three]) == two


def test_a_task_may_help_in_several_groups_and_is_served_from_one():
    effects = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, -2.0], [0.0, -2.0, 0.0]])
    found = chosen(best_groupings(["helper", "x", "y"], effects, 2))
    assert found.gain == pytest.approx(2.0)
    assert sorted(group.tasks for group in found.groups) == [("helper", "x"), ("helper", "y")]
    assert sorted(task for group in found.groups for task in group.serves) == ["helper", "x", "y"]


@pytest.mark.parametrize("seed", range(4))
def test_the_search_is_exact(seed):
    effects = random_effects(4, seed)
    for number, found in enumerate(best_groupings(TASKS[:4], effects, 3), start=1):
        assert len(found.groups) == number
        # Fewer groups than allowed never have a larger gain, since a group may serve one task like a larger one.
        assert found.gain == pytest.approx(brute_force(effects, number))


@pytest.mark.parametrize("seed", range(4))
def test_the_greedy_search_is_close_to_the_exact_one(seed, monkeypatch):
    effects = random_effects(7, seed)
    names = list("abcdefg")
    exact = best_groupings(names, effects, 4)
    monkeypatch.setattr(grouping, "MOST_EXACT", 0)
    greedy = best_groupings(names, effects, 4)
    for best, found in zip(exact, greedy, strict=True):
        assert len(found.groups) == len(best.groups)
        assert sorted(task for group in found.groups for task in group.serves) == names
        assert 0.8 * best.gain <= found.gain <= best.gain + 1e-9


def test_many_tasks_in_blocks_are_found():
    effects = np.kron(np.eye(4), np.ones((3, 3)))
    found = chosen(best_groupings([f"t{number}" for number in range(12)], effects, 6))
    assert [group.serves for group in found.groups] == [
        tuple(f"t{3 * block + place}" for place in range(3)) for block in range(4)
    ]
