"""Sequences of different lengths in one array."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.modeling.ragged_multitask import Ragged

LISTS = [[3, 4], [], [5], [6, 7, 8]]


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [sequence.tolist() for sequence in ragged]


def test_sequences_are_those_of_the_lists():
    ragged = Ragged.of(LISTS)
    assert as_lists(ragged) == LISTS
    assert ragged.sizes.tolist() == [2, 0, 1, 3]
    assert ragged.numbers.tolist() == [0, 0, 2, 3, 3, 3]
    assert ragged[-1].tolist() == [6, 7, 8]
    assert as_lists(ragged[1:3]) == [[], [5]]
    assert Ragged.of(ragged) is ragged
    with pytest.raises(IndexError):
        ragged[4]


@pytest.mark.parametrize("indices", [[3, 0], [], [1], [2, 2, 1, 3]])
def test_take_gathers_sequences_in_order(indices):
    taken = Ragged.of(LISTS).take(np.array(indices, dtype=np.int64))
    assert as_lists(taken) == [LISTS[index] for index in indices]


def test_offsets_may_start_inside_of_the_data():
    ragged = Ragged(np.arange(10), np.array([2, 5, 5, 6]))
    assert as_lists(ragged) == [[2, 3, 4], [], [5]]
    assert ragged.values.tolist() == [2, 3, 4, 5]
    assert as_lists(ragged.take(np.array([2, 0]))) == [[5], [2, 3, 4]]


def test_parts_are_joined():
    assert as_lists(Ragged.joined([Ragged.of(LISTS[:2]), Ragged.of([]), Ragged.of(LISTS[2:])])) == LISTS


def test_numbers_keep_their_type():
    assert Ragged.of([[0.5], [1.5, 2.5]], np.float32).values.dtype == np.float32
