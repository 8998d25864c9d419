from __future__ import annotations

import numpy as np

from mtl_nlp.mixture.batching import Homogeneous, Mixed
from mtl_nlp.mixture.step_size import FixedRows

SIZE = FixedRows(100, 4, 2)
ROWS = [np.array([1, 2]), np.array([3])]


def test_mixed_turn_is_a_row_and_all_rows_are_batched_together():
    mixed = Mixed(SIZE)
    assert (mixed.turns_per_epoch, mixed.turns_per_step, mixed.least) == (100, 8, 2)
    assert mixed.counts(np.array([3, 5]), np.array([0, 1])).tolist() == [3, 5]
    assert [pool.tolist() for pool in mixed.pools(ROWS)] == [[1, 2, 3]]


def test_homogeneous_turn_is_a_step_and_datasets_are_batched_separately():
    homogeneous = Homogeneous(SIZE)
    assert (homogeneous.turns_per_epoch, homogeneous.turns_per_step, homogeneous.least) == (13, 1, 1)
    assert homogeneous.counts(np.array([3, 0]), np.array([0, 1])).tolist() == [24, 0]
    assert [pool.tolist() for pool in homogeneous.pools(ROWS)] == [[1, 2], [3]]
