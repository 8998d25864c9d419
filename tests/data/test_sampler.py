from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.mixture import TaskMixture
from mtl_nlp.data.sampler import MixtureBatchSampler, take_turns

SIZES = (7, 100, 1001)


def mixture(*sizes: int, temperature: float = 1.0) -> TaskMixture:
    """Datasets with random lengths."""
    rng = np.random.default_rng(0)
    datasets = {}
    for number, size in enumerate(sizes):
        windows = Dataset.from_dict({"length": rng.integers(3, 100, size).tolist()})
        datasets[f"d{number}"] = EncodedDataset(f"d{number}", windows, {"t": ["x"] * size}, 0, 0, "f")
    return TaskMixture(datasets, temperature)


def epoch(sampler: MixtureBatchSampler, number: int) -> list[list[int]]:
    sampler.set_epoch(number)
    return list(sampler)


@pytest.mark.parametrize("temperature", [1, 2, 5, 100])
def test_every_row_is_reached_at_any_temperature(temperature):
    mixed = mixture(*SIZES, temperature=temperature)
    sampler = MixtureBatchSampler(mixed, 16)
    epochs = int(np.ceil(max(mixed.sizes / (mixed.probabilities * len(mixed))))) + 1
    counts = np.bincount(
        [row for number in range(epochs) for batch in epoch(sampler, number) for row in batch], minlength=len(mixed)
    )
    assert counts.min() >= 1


@pytest.mark.parametrize("temperature", [1, 2, 5, 100])
def test_each_pass_over_a_dataset_is_without_replacement(temperature):
    mixed = mixture(*SIZES, temperature=temperature)
    sampler = MixtureBatchSampler(mixed, 16)
    drawn: list[int] = []
    for number in range(3):
        sampler.set_epoch(number)
        drawn += sampler._rows().tolist()
    for start, end in zip(mixed.offsets, mixed.offsets[1:], strict=False):
        size = end - start
        own = [row for row in drawn if start <= row < end]
        for first in range(0, len(own), size):
            assert len(set(own[first : first + size])) == len(own[first : first + size])


def test_one_epoch_of_one_dataset_is_each_row_once_and_shuffled():
    sampler = MixtureBatchSampler(mixture(1001), 16)
    rows = [row for batch in epoch(sampler, 0) for row in batch]
    assert sorted(rows) == list(range(1001))
    assert rows != sorted(rows)


@pytest.mark.parametrize("probabilities", [[1.0], [0.5, 0.5], [1e-4, 0.9999], [0.01, 0.19, 0.8], [1 / 3] * 3])
def test_after_every_row_each_dataset_is_within_one_row_of_its_share(probabilities):
    probabilities = np.array(probabilities)
    turns = take_turns(probabilities, 5000)
    taken = np.cumsum(turns[:, None] == np.arange(len(probabilities)), axis=0)
    shares = np.arange(1, 5001)[:, None] * probabilities
    assert np.abs(taken - shares).max() <= 1.0


def test_the_schedule_is_a_function_of_seed_and_epoch():
    mixed = mixture(*SIZES, temperature=2)
    schedules = {
        (seed, number): epoch(MixtureBatchSampler(mixed, 16, seed), number) for seed in (0, 1) for number in (0, 1)
    }
    assert epoch(MixtureBatchSampler(mixed, 16, 1), 1) == schedules[1, 1]
    assert len({str(schedule) for schedule in schedules.values()}) == 4


@pytest.mark.parametrize("rows_per_batch", [1, 16, 100, 5000])
def test_batches_are_full_but_for_the_last_and_len_counts_them(rows_per_batch):
    mixed = mixture(*SIZES, temperature=2)
    sampler = MixtureBatchSampler(mixed, rows_per_batch)
    sizes = [len(batch) for batch in epoch(sampler, 0)]
    assert len(sampler) == len(sizes)
    assert sum(sizes) == len(mixed)
    assert set(sizes[:-1]) <= {rows_per_batch}
    assert sizes[-1] <= rows_per_batch


def test_rows_of_like_length_come_together_and_batches_in_random_order():
    mixed = mixture(*SIZES)

    def padding(batches: list[list[int]]) -> float:
        lengths = [mixed.lengths[batch] for batch in batches]
        return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)

    rows = np.random.default_rng(0).permutation(len(mixed)).tolist()
    random = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    grouped = epoch(MixtureBatchSampler(mixed, 16), 0)
    assert padding(grouped) < 0.1 * padding(random)
    longest = [max(mixed.lengths[batch]) for batch in grouped]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_small_datasets_repeat_at_a_high_temperature():
    mixed = mixture(*SIZES, temperature=100)
    rows = [row for batch in epoch(MixtureBatchSampler(mixed, 16), 0) for row in batch]
    counts = Counter(rows)
    assert max(counts[row] for row in range(7)) - min(counts[row] for row in range(7)) <= 1
    assert min(counts[row] for row in range(7)) > 40
