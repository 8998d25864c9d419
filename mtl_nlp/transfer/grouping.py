"""Groups of tasks to train together, chosen by who helps whom, with at most a given number of encoders.

A group is a set of tasks that share an encoder. Every task is served from one group, and may help in others. The gain
of a task in its group is the mean effect of the group's other tasks on the task, which is the approximation of Fifty et
al. (2021) for more than two tasks; a task alone has the gain 0. The predicted gain of a grouping is the sum over tasks.
A helper without an effect lowers the mean, so that unrelated tasks are left out.

The search is exact for at most ten tasks, by dynamic programming over subsets: the best group that serves a set of
tasks is found for each set, and then the best partition of all tasks into served sets. With more tasks, served sets are
merged greedily, and single moves and swaps of tasks improve them. Standley et al. (2020) and Fifty et al. (2021) search
the same space by branch and bound.

Sources: Standley et al. (2020), "Which Tasks Should Be Learned Together in Multi-task Learning?"; Fifty et al. (2021),
"Efficiently Identifying Task Groupings for Multi-Task Learning".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

MOST_EXACT = 10
"""The largest number of tasks with an exact search."""

_DIGITS = 12
"""The decimals in which two gains are compared: equal gains differ by rounding."""

Served = tuple[int, ...]
"""The places of the tasks that a group serves."""


class Group(NamedTuple):
    """Tasks that share an encoder.

    Attributes:
        tasks: all tasks that are trained together.
        serves: the tasks that are served from the group; the others only help.
    """

    tasks: tuple[str, ...]
    serves: tuple[str, ...]


class Grouping(NamedTuple):
    """Groups that together serve every task once.

    Attributes:
        groups: the groups.
        gain: the predicted gain, summed over the tasks.
    """

    groups: list[Group]
    gain: float


def best_groupings(tasks: Sequence[str], effects: np.ndarray, most: int) -> list[Grouping]:
    """Return the best grouping for each number of groups, from 1 to the largest number.

    Args:
        tasks: the names of the tasks.
        effects: the effect of each task (row) on each task (column), with 0 for no effect, shape (tasks, tasks). The
            diagonal has no meaning.
        most: the largest number of groups; at most one per task is used.

    Returns:
        The groupings by their number of groups. With equal gains, the grouping with the fewest helpers is best.
    """
    effects = np.where(np.eye(len(tasks), dtype=bool), 0.0, effects)
    most = min(most, len(tasks))
    search = _exact if len(tasks) <= MOST_EXACT else _greedy
    found = search(effects, most)
    return [
        Grouping(
            [
                Group(tuple(tasks[place] for place in members), tuple(tasks[place] for place in served))
                for members, served in sorted(groups, key=lambda group: group[1])
            ],
            sum(gain_of(effects, members, served) for members, served in groups),
        )
        for groups in found
    ]


def gain_of(effects: np.ndarray, members: Iterable[int], served: Iterable[int]) -> float:
    """Return the summed gain of some tasks of a group.

    Args:
        effects: the effect of each task (row) on each task (column), with 0 on the diagonal.
        members: the places of all tasks of the group.
        served: the places of the tasks whose gains count.
    """
    places = [*members]
    if len(places) < 2:
        return 0.0
    return float(effects[np.ix_(places, [*served])].sum()) / (len(places) - 1)


def chosen(groupings: Sequence[Grouping]) -> Grouping:
    """Return the grouping with the largest predicted gain; of equal gains, the one with the fewest groups."""
    return max(groupings, key=lambda grouping: (round(grouping.gain, _DIGITS), -len(grouping.groups)))


_Groups = list[tuple[Served, Served]]
"""The members and the served tasks of each group."""


def _exact(effects: np.ndarray, most: int) -> list[_Groups]:
    """Return the best groups for each number of groups by dynamic programming over sets of tasks as bit masks."""
    count = len(effects)
    best = _best_groups(effects)
    everything = (1 << count) - 1
    # The key of a set of tasks: the gain and the negative number of members, and the first served set.
    table: list[dict[int, tuple[float, int, int]]] = [{0: (0.0, 0, 0)}]
    for _ in range(most):
        before, now = table[-1], {}
        for tasks in range(1, everything + 1):
            lowest = tasks & -tasks
            options = [
                (round(best[first][0] + rest[0], _DIGITS), rest[1] - best[first][1].bit_count(), first)
                for first in _subsets(tasks)
                if first & lowest and (rest := before.get(tasks & ~first)) is not None
            ]
            if options:
                now[tasks] = max(options)
        table.append(now)
    found = []
    for number in range(1, most + 1):
        groups, left = [], everything
        for level in range(number, 0, -1):
            first = table[level][left][2]
            groups.append((_places(best[first][1]), _places(first)))
            left &= ~first
        found.append(groups)
    return found


def _best_groups(effects: np.ndarray) -> list[tuple[float, int]]:
    """Return the gain and the members of the best group that serves each set of tasks, by the set's bit mask."""
    count = len(effects)
    best: list[tuple[float, int]] = [(-np.inf, 0)] * (1 << count)
    # Small groups come first, so that of equal gains the group with the fewest helpers is kept.
    for members in sorted(range(1, 1 << count), key=int.bit_count):
        places = _places(members)
        gains = effects[list(places)].sum(axis=0) / max(len(places) - 1, 1)
        sums = {0: 0.0}
        for served in sorted(_subsets(members)):
            lowest = served & -served
            sums[served] = sums[served ^ lowest] + float(gains[lowest.bit_length() - 1])
            if round(sums[served], _DIGITS) > best[served][0]:
                best[served] = (round(sums[served], _DIGITS), members)
    return best


def _subsets(mask: int) -> Iterable[int]:
    """Yield the subsets of a set as bit masks, without the empty one, from the largest mask to the smallest."""
    subset = mask
    while subset:
        yield subset
        subset = (subset - 1) & mask


def _places(mask: int) -> Served:
    return tuple(place for place in range(mask.bit_length()) if mask >> place & 1)


def _greedy(effects: np.ndarray, most: int) -> list[_Groups]:
    """Return good groups for each number of groups: served sets are merged in pairs, then tasks move and swap."""

    @cache
    def group_of(served: Served) -> tuple[float, Served]:
        return _with_helpers(effects, served)

    def total(sets: Iterable[Served]) -> float:
        return round(sum(group_of(served)[0] for served in sets), _DIGITS)

    sets: list[Served] = [(place,) for place in range(len(effects))]
    found: list[_Groups] = []
    while True:
        if len(sets) <= most:
            sets = _improved(sets, total)
            found.append([(group_of(served)[1], served) for served in sets])
        if len(sets) == 1:
            return found[::-1]
        pairs = itertools.combinations(range(len(sets)), 2)
        sets = max((_merged(sets, a, b) for a, b in pairs), key=total)


def _merged(sets: Sequence[Served], a: int, b: int) -> list[Served]:
    rest = [served for place, served in enumerate(sets) if place not in {a, b}]
    return [*rest, tuple(sorted((*sets[a], *sets[b])))]


def _with_helpers(effects: np.ndarray, served: Served) -> tuple[float, Served]:
    """Return the gain and the members of a group that serves some tasks: helpers are added while the gain rises."""
    members, gain = [*served], gain_of(effects, served, served)
    while True:
        sums = effects[np.ix_(members, served)].sum() + effects[:, served].sum(axis=1)
        sums[members] = -np.inf
        helper = int(np.argmax(sums))
        reached = float(sums[helper]) / len(members)
        if round(reached - gain, _DIGITS) <= 0:
            return gain, tuple(sorted(members))
        members, gain = [*members, helper], reached


def _improved(sets: list[Served], total: Callable[[Iterable[Served]], float]) -> list[Served]:
    """Return served sets after the best moves of a task to another set and swaps of two tasks, until none helps."""
    while True:
        best = max(_neighbours(sets), key=total, default=sets)
        if total(best) <= total(sets):
            return sets
        sets = best


def _neighbours(sets: Sequence[Served]) -> Iterable[list[Served]]:
    """Yield the served sets after each move of a task to another set, and after each swap of two tasks."""
    for a, b in itertools.permutations(range(len(sets)), 2):
        for task in sets[a]:
            if len(sets[a]) > 1:
                yield _changed(sets, {a: {task}, b: set()}, {a: set(), b: {task}})
            for other in sets[b] if a < b else ():
                yield _changed(sets, {a: {task}, b: {other}}, {a: {other}, b: {task}})


def _changed(sets: Sequence[Served], left: dict[int, set[int]], came: dict[int, set[int]]) -> list[Served]:
    """Return served sets after tasks have left some of them and come to others."""
    return [
        tuple(sorted(({*served} - left[place]) | came[place])) if place in left else served
        for place, served in enumerate(sets)
    ]
