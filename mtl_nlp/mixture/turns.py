"""Fair turns: a number of turns per dataset that stays less than one turn away from the dataset's share."""

from __future__ import annotations

import numpy as np


def count_portions(total: int, size: int, least: int) -> int:
    """Return the number of portions that `portions` makes."""
    return max(1, total // size + (total % size >= least))


def portions(total: int, size: int, least: int) -> list[int]:
    """Divide a total into portions of equal size.

    Args:
        total: the number to divide.
        size: the size of a portion.
        least: the smallest portion that the remainder can form. A smaller remainder is added to the last portion.
    """
    count = count_portions(total, size, least)
    return [size] * (count - 1) + [total - size * (count - 1)]


def next_turns(done: np.ndarray, due: np.ndarray, rates: np.ndarray, count: int) -> np.ndarray:
    """Distribute `count` turns so that every dataset stays less than one turn away from its due at constant rates.

    Overdue turns come first. The remaining turns go to the datasets whose next turn is due soonest (earliest deadline
    first, which is optimal for such schedules; Tijdeman 1980 for the case of one turn at a time).

    Args:
        done: number of turns that each dataset has had, shape (datasets,).
        due: number of turns that each dataset should have had after these turns, shape (datasets,). The sum of `due` is
            the sum of `done` plus `count`.
        rates: share of each dataset in a turn, shape (datasets,).
        count: number of turns.

    Returns:
        The number of turns of each dataset, shape (datasets,).
    """
    whole = np.floor(due).astype(np.int64)
    turns = np.maximum(whole - done, 0)
    waiting = np.flatnonzero(done + turns < due)
    soonest = waiting[np.argsort((whole + 1 - due)[waiting] / rates[waiting], kind="stable")]
    turns[soonest[: count - turns.sum()]] += 1
    return turns
