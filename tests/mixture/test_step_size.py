from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.step_size import FixedRows, TokenBudget
from mtl_nlp.mixture.walks import DatasetWalks


def budget(max_tokens: int, num_processes: int, *lengths: list[int]) -> TokenBudget:
    """Return a token budget for datasets with rows of these lengths."""
    datasets = {
        f"d{number}": EncodedDataset(
            f"d{number}", Dataset.from_dict({"length": own}), {"t": ["x"] * len(own)}, 0, 0, "f"
        )
        for number, own in enumerate(lengths)
    }
    mixture = TaskMixture(datasets)
    return TokenBudget(mixture, max_tokens, num_processes, DatasetWalks(mixture.sizes, 0))


@pytest.mark.parametrize(("rows", "steps"), [(12, [6, 6]), (13, [6, 7]), (14, [6, 6, 2]), (1, [1])])
def test_fixed_rows_form_full_steps_with_a_row_for_every_process(rows, steps):
    size = FixedRows(rows, 3, 2)
    assert size.cut(np.full(rows, 9)) == steps
    assert size.count_steps(rows) == size.steps_per_epoch == len(steps)
    assert (size.rows_per_step, size.rows_per_epoch) == (6, rows)
    assert size.rows_that_fill(0, 5, 4) == 24


@pytest.mark.parametrize(("processes", "steps"), [(1, [2, 3, 3]), (2, [4, 4])])
def test_token_budget_counts_padding_to_the_longest_row(processes, steps):
    size = budget(20, processes, [10] * 8)
    assert size.cut(np.array([10, 9, 6, 5, 5, 4, 3, 1])) == steps
    assert size.count_steps(8) is None


def test_token_budget_plans_epochs_from_the_mean_length():
    size = budget(20, 2, [4, 6], [5, 5, 5])
    assert (size.steps_per_epoch, size.rows_per_step, size.rows_per_epoch) == (1, 8, 6)


def test_rows_that_fill_steps_are_as_many_as_fit():
    size = budget(20, 2, [10] * 6, [7] * 9)
    assert [size.rows_that_fill(0, 0, steps) for steps in (0, 1, 2)] == [0, 4, 8]
    assert [size.rows_that_fill(1, 5, steps) for steps in (0, 1, 2)] == [0, 4, 8]


def test_row_longer_than_the_token_budget_is_refused():
    message = r"a row of d1 has 21 sub-words \(window 1\)\. Raise `max_tokens_per_batch`, or lower"
    with pytest.raises(ValueError, match=message):
        budget(20, 1, [3], [3, 21])
