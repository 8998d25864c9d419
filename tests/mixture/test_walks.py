from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mtl_nlp.mixture.walks import DatasetWalks


def walks_of(*sizes: int, seed: int = 0) -> DatasetWalks:
    return DatasetWalks(np.array(sizes), seed)


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 5000])
def test_each_pass_has_every_row_once_in_a_different_order(size):
    passes = walks_of(3, size).rows(1, 0, 6 * size).reshape(6, size)
    assert (np.sort(passes, axis=1) == np.arange(size)).all()
    if size >= 100:
        assert len({tuple(order) for order in passes.tolist()}) == 6
        assert not (passes == np.arange(size)).all(axis=1).any()
        assert abs(np.corrcoef(passes)[~np.eye(6, dtype=bool)]).max() < 0.5


def test_walk_can_start_and_resume_at_any_position():
    walks = walks_of(7, 5000)
    for number in (0, 1):
        whole = walks.rows(number, 0, 20_000)
        cuts = [0, 1, 6, 4095, 4999, 5000, 9998, 10_001, 20_000]
        parts = [walks.rows(number, start, end - start) for start, end in pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(walks.rows(number, 3, 10), whole[3:13])
        assert len(walks.rows(number, 3, 0)) == 0


def test_different_seed_gives_a_different_order():
    first, second = (walks_of(7, 1000, seed=seed).rows(1, 0, 1000) for seed in (0, 1))
    assert first.tolist() != second.tolist()
