from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.mixture.turns import portions

SIZES = (7, 100, 10_001)
INF = float("inf")

temperatures = pytest.mark.parametrize("temperature", [1, 2, 5, INF])
batchings = pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
worlds = pytest.mark.parametrize("world", [1, 2, 3])


def of_lengths(name: str, lengths: Sequence[int]) -> EncodedDataset:
    return EncodedDataset(name, Dataset.from_dict({"length": list(lengths)}), {"t": ["x"] * len(lengths)}, 0, 0, "f")


@cache
def dataset(number: int, size: int, shortest: int, longest: int) -> EncodedDataset:
    """Return a dataset of rows with random lengths."""
    return of_lengths(f"d{number}", np.random.default_rng(number).integers(shortest, longest + 1, size).tolist())


def mixture(*sizes: int, lengths: Sequence[tuple[int, int]] = (), **options: Any) -> TaskMixture:
    spans = list(lengths) or [(3, 99)] * len(sizes)
    return TaskMixture({f"d{n}": dataset(n, size, *spans[n]) for n, size in enumerate(sizes)}, **options)


def sampler_of(
    mixed: TaskMixture, world: int = 1, rank: int = 0, rows: int = 16, **options: Any
) -> MixtureBatchSampler:
    return MixtureBatchSampler(mixed, rows, process_index=rank, num_processes=world, **options)


def epoch(sampler: MixtureBatchSampler, number: int) -> list[list[int]]:
    sampler.set_epoch(number)
    return list(sampler)


def by_rank(mixed: TaskMixture, world: int, number: int = 0, **options: Any) -> list[list[list[int]]]:
    """Return every process's batches of an epoch; check that none is empty and that their number is `len(sampler)`."""
    samplers = [sampler_of(mixed, world, rank, **options) for rank in range(world)]
    ranks = [epoch(sampler, number) for sampler in samplers]
    assert {len(batches) for batches in ranks} == {len(sampler) for sampler in samplers} == {len(samplers[0])}
    assert all(batch for batches in ranks for batch in batches)
    return ranks


def all_rows(ranks: list[list[list[int]]]) -> np.ndarray:
    return np.concatenate([batch for batches in ranks for batch in batches])


def rows_of_steps(sampler: MixtureBatchSampler, epochs: int) -> list[np.ndarray]:
    """Return the steps of several epochs."""
    steps = []
    for number in range(epochs):
        sampler.set_epoch(number)
        steps += list(sampler.steps())
        assert len(steps) == len(sampler) * (number + 1)
    return steps


def dataset_of(mixed: TaskMixture, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.searchsorted(mixed.offsets, rows, side="right") - 1


def padding(mixed: TaskMixture, batches: list[list[int]]) -> float:
    lengths = [mixed.lengths[batch] for batch in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


# Rows of an epoch


@temperatures
@batchings
@worlds
def test_every_row_is_reached(temperature, batching, world):
    mixed = mixture(*SIZES, temperature=temperature, batching=batching)
    in_epoch, behind = len(mixed), 1
    if batching == "homogeneous":
        in_epoch, behind = len(sampler_of(mixed, world)) * 16 * world, 16 * world
    epochs = int(np.ceil(max((mixed.sizes + behind) / (mixed.probabilities * in_epoch))))
    rows = np.concatenate([all_rows(by_rank(mixed, world, number)) for number in range(epochs)])
    assert np.bincount(rows, minlength=len(mixed)).min() >= 1


@worlds
def test_temperature_1_gives_every_row_once_per_epoch_over_all_processes(world):
    mixed = mixture(*SIZES)
    for number in range(3):
        assert sorted(all_rows(by_rank(mixed, world, number))) == list(range(len(mixed)))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("length_window", [1, 3, 100])
def test_no_row_is_lost_or_repeated_for_any_remainder(world, length_window):
    step = world * 4
    for whole in (1, 7):
        for left in {0, 1, world - 1, world, world + 1, 2 * world, step - 1}:
            mixed = mixture(whole * step - 3 + left, 3, length_window=length_window)
            for number in range(2):
                ranks = by_rank(mixed, world, number, rows=4)
                assert sorted(all_rows(ranks)) == list(range(len(mixed)))
                sizes = [len(batch) for batches in ranks for batch in batches]
                # Only the step with the remainder is not full.
                assert sum(size != 4 for size in sizes) <= world
                assert max(sizes) <= 5
                assert len(ranks[0]) == whole + (left >= world)


@worlds
def test_fewer_rows_than_a_step_form_one_batch_per_process(world):
    ranks = by_rank(mixture(3, 1), world)
    assert [len(batches) for batches in ranks] == [1] * world
    assert sorted(all_rows(ranks)) == [0, 1, 2, 3]


def test_more_processes_than_rows_are_refused():
    with pytest.raises(ValueError, match="There are 8 processes and only 7 rows to train on"):
        sampler_of(mixture(3, 4), 8)


@batchings
@pytest.mark.parametrize("max_tokens", [None, 256])
def test_dataset_can_have_fewer_rows_than_processes(batching, max_tokens):
    mixed = mixture(1, 60, batching=batching, temperature=INF)
    rows = all_rows(by_rank(mixed, 3, rows=4, max_tokens=max_tokens))
    assert set(rows) >= {0}
    assert set(dataset_of(mixed, rows)) == {0, 1}


@temperatures
@batchings
@worlds
def test_windows_are_consecutive_parts_of_the_walks_over_the_datasets(temperature, batching, world):
    mixed = mixture(*SIZES, temperature=temperature, batching=batching, length_window=20)
    sampler = sampler_of(mixed, world)
    rows = np.concatenate(rows_of_steps(sampler, 3))
    start, expected_drawn = 0, np.zeros(3, dtype=int)
    for number, window in enumerate(sampler.windows()):
        if start == len(rows):
            break
        assert window.number == number
        assert window.drawn.tolist() == expected_drawn.tolist()
        own = rows[start : start + window.counts.sum()]
        for d, (offset, drawn, count) in enumerate(zip(mixed.offsets[:-1], window.drawn, window.counts, strict=True)):
            walked = offset + sampler.walk(d, int(drawn), int(count))
            assert sorted(own[dataset_of(mixed, own) == d]) == sorted(walked)
        start += len(own)
        expected_drawn += window.counts
    # An epoch ends at the end of a window.
    assert start == len(rows)


def test_small_datasets_repeat_evenly_at_a_high_temperature():
    mixed = mixture(*SIZES, temperature=INF)
    counts = Counter(all_rows(by_rank(mixed, 2)).tolist())
    for rows in (range(7), range(7, 107)):
        repeats = [counts[row] for row in rows]
        assert max(repeats) - min(repeats) <= 1
        assert min(repeats) >= len(mixed) // 3 // len(rows)
    assert max(counts[row] for row in range(107, len(mixed))) == 1


# Shares of datasets


def expected_shares(sampler: MixtureBatchSampler, sizes: Sequence[int], total: float) -> np.ndarray:
    """Return each dataset's number of turns due after windows of these sizes, shape (windows, datasets)."""
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    middles = np.minimum((before + np.array(sizes) / 2) / total, 1.0)
    return np.cumsum([sampler.mixture.probabilities_at(m) * n for m, n in zip(middles, sizes, strict=True)], axis=0)


@worlds
@pytest.mark.parametrize("temperature", [1, 2, 5, INF, (5, 1), (1, 20)])
@pytest.mark.parametrize("length_window", [1, 7, 100])
def test_mixed_rows_are_within_1_of_their_share_after_every_window(temperature, length_window, world):
    mixed = mixture(*SIZES, temperature=temperature, length_window=length_window)
    sampler = sampler_of(mixed, world)
    sampler.total_batches = 3 * len(sampler)
    counts = np.array([window.counts for window in islice(sampler.windows(), 300)])
    due = expected_shares(sampler, counts.sum(axis=1), 3 * len(mixed))
    assert np.abs(np.cumsum(counts, axis=0) - due).max() <= 1 + 1e-6
    assert counts.min() >= 0


@worlds
@pytest.mark.parametrize("temperature", [1, 2, 5, INF, (5, 1), (1, 20)])
@pytest.mark.parametrize("length_window", [1, 7, 100])
def test_homogeneous_batches_are_within_1_of_their_share_after_every_window(temperature, length_window, world):
    mixed = mixture(*SIZES, temperature=temperature, batching="homogeneous", length_window=length_window)
    sampler = sampler_of(mixed, world)
    sampler.total_batches = 3 * len(sampler)
    counts = np.array([window.counts for window in islice(sampler.windows(), 300)])
    assert (counts % (16 * world) == 0).all()
    steps = counts // (16 * world)
    due = expected_shares(sampler, steps.sum(axis=1), 3 * len(sampler))
    assert np.abs(np.cumsum(steps, axis=0) - due).max() <= 1 + 1e-6


@temperatures
@worlds
def test_processes_are_within_1_row_or_batch_of_their_share_after_every_epoch(temperature, world):
    for batching in ("mixed", "homogeneous"):
        mixed = mixture(*SIZES, temperature=temperature, batching=batching)
        had = np.zeros(3)
        for number in range(3):
            ranks = by_rank(mixed, world, number)
            rows = all_rows(ranks) if batching == "mixed" else [batch[0] for batch in ranks[-1]]
            had += np.bincount(dataset_of(mixed, rows), minlength=3)
            in_epoch = len(mixed) if batching == "mixed" else len(ranks[0])
            assert np.abs(had - mixed.probabilities * in_epoch * (number + 1)).max() <= 1 + 1e-6


@batchings
def test_changing_temperature_gives_its_mean_probabilities_over_the_training(batching):
    mixed = mixture(*SIZES, temperature=(5, 1), batching=batching, length_window=5)
    sampler = sampler_of(mixed)
    sampler.total_batches = 2 * len(sampler)
    steps = rows_of_steps(sampler, 3)
    per_epoch = [steps[number * len(sampler) : (number + 1) * len(sampler)] for number in range(3)]
    observed = [np.bincount(dataset_of(mixed, np.concatenate(part)), minlength=3) for part in per_epoch]
    means = [
        np.mean([mixed.probabilities_at(progress) for progress in np.linspace(*span, 1001)], axis=0)
        for span in ((0.0, 0.5), (0.5, 1.0), (1.0, 1.0))
    ]
    for rows, mean in zip(observed, means, strict=True):
        np.testing.assert_allclose(rows / rows.sum(), mean, atol=0.004)


# Shares of processes


@temperatures
@worlds
def test_homogeneous_step_is_full_and_has_one_dataset_in_all_processes(temperature, world):
    mixed = mixture(*SIZES, temperature=temperature, batching="homogeneous")
    ranks = by_rank(mixed, world)
    assert {len(batch) for batches in ranks for batch in batches} == {16}
    for batches in zip(*ranks, strict=True):
        assert len(set(dataset_of(mixed, np.concatenate(batches)))) == 1


@batchings
@pytest.mark.parametrize("max_tokens", [None, 512])
def test_processes_plan_the_same_steps_and_share_each_step(batching, max_tokens):
    mixed = mixture(*SIZES[:2], temperature=2, batching=batching)
    samplers = [sampler_of(mixed, 3, rank, max_tokens=max_tokens) for rank in range(3)]
    for sampler in samplers:
        sampler.set_epoch(1)
    plans = [[step.tolist() for step in sampler.steps()] for sampler in samplers]
    assert plans[0] == plans[1] == plans[2]
    for step, *batches in zip(plans[0], *samplers, strict=True):
        assert sorted(step) == sorted(row for batch in batches for row in batch)
        assert max(map(len, batches)) - min(map(len, batches)) <= 1


@batchings
@temperatures
def test_two_processes_with_half_the_batch_have_the_rows_of_one_process_at_every_step(batching, temperature):
    mixed = mixture(*SIZES, temperature=temperature, batching=batching)
    for number in range(2):
        (one,) = by_rank(mixed, 1, number, rows=32)
        two = by_rank(mixed, 2, number, rows=16)
        assert [sorted(batch) for batch in one] == [sorted(a + b) for a, b in zip(*two, strict=True)]


@batchings
def test_batches_of_a_step_have_nearly_equal_length(batching):
    mixed = mixture(*SIZES, batching=batching)
    longest = np.array([[max(mixed.lengths[batch]) for batch in batches] for batches in by_rank(mixed, 3)])
    apart = longest.max(axis=0) - longest.min(axis=0)
    assert apart.mean() < 0.5
    assert np.quantile(apart, 0.99) <= 8


# Reproducibility


@batchings
@pytest.mark.parametrize("max_tokens", [None, 512])
def test_schedule_is_a_function_of_seed_and_epoch(batching, max_tokens):
    mixed = mixture(*SIZES[:2], 901, temperature=(5, 1), batching=batching)
    in_turn = sampler_of(mixed, 2, max_tokens=max_tokens)
    epochs = [epoch(in_turn, number) for number in range(4)]
    assert epoch(sampler_of(mixed, 2, max_tokens=max_tokens), 3) == epochs[3]
    assert list(in_turn) == list(in_turn) == epochs[3]
    assert epoch(in_turn, 1) == epochs[1]
    other_seed = epoch(sampler_of(mixed, 2, max_tokens=max_tokens, seed=1), 0)
    assert len({str(schedule) for schedule in [*epochs, other_seed]}) == 5


@pytest.mark.parametrize(
    ("batching", "max_tokens", "expected"),
    [
        ("mixed", None, "3995bb5fba35a2c3"),
        ("mixed", 300, "3a0c998dd56e7f14"),
        ("homogeneous", None, "54a386b772c521f0"),
        ("homogeneous", 300, "e6a50ad031114f3d"),
    ],
)
def test_schedule_is_equal_in_all_releases(batching, max_tokens, expected):
    """Check the digest, since a run that resumes inside a different schedule would repeat or skip rows."""
    mixed = mixture(7, 100, 1001, temperature=(5, 1), max_repeats=20, batching=batching, length_window=7)
    digest = hashlib.sha256()
    for world in (1, 3):
        sampler = sampler_of(mixed, world, rows=8, max_tokens=max_tokens, seed=11)
        sampler.total_batches = 2 * len(sampler)
        for step in rows_of_steps(sampler, 3):
            digest.update(np.array([len(step), *step], dtype="<i8").tobytes())
    assert digest.hexdigest()[:16] == expected


def test_simultaneous_iterators_are_independent():
    sampler = sampler_of(mixture(*SIZES, temperature=2))
    alone = list(sampler)
    first, second = zip(*zip(sampler, sampler, strict=True), strict=True)
    assert list(first) == list(second) == alone


def test_duration_of_the_temperature_change_does_not_change_the_number_of_batches():
    sampler = sampler_of(mixture(*SIZES, temperature=(5, 1)))
    assert sampler.total_batches == len(epoch(sampler, 0))
    sampler.total_batches = 7 * len(sampler)
    assert len(epoch(sampler, 0)) == len(sampler)


def test_sampler_has_no_batch_size_attribute_for_accelerate():
    assert not hasattr(sampler_of(mixture(7)), "batch_size")


# Length


@batchings
@worlds
def test_rows_of_similar_length_share_batches(batching, world):
    mixed = mixture(*SIZES, batching=batching)
    rows = np.random.default_rng(0).permutation(len(mixed)).tolist()
    random = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    for batches in by_rank(mixed, world):
        assert padding(mixed, batches) < 0.1 * padding(mixed, random)


def test_longer_window_pads_less():
    paddings = [padding(m, list(sampler_of(m))) for m in (mixture(*SIZES, length_window=n) for n in (1, 10, 100))]
    assert paddings == sorted(paddings, reverse=True)
    assert paddings[0] > 2 * paddings[2]


@batchings
def test_batch_lengths_are_in_random_order(batching):
    mixed = mixture(*SIZES, batching=batching)
    longest = [max(mixed.lengths[batch]) for batch in sampler_of(mixed)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.1


def test_every_window_has_a_different_order():
    mixed = mixture(10_001, length_window=100)
    longest = np.array([max(mixed.lengths[batch]) for batch in sampler_of(mixed)])
    assert abs(np.corrcoef(longest[:100], longest[100:200])[0, 1]) < 0.5


def test_rows_of_equal_length_are_in_random_order():
    mixed = mixture(1000, 1000, lengths=[(10, 10)] * 2)
    assert {tuple(set(dataset_of(mixed, batch))) for batch in sampler_of(mixed)} == {(0, 1)}


@batchings
@pytest.mark.parametrize("max_tokens", [None, 1024])
def test_datasets_are_spread_evenly_over_an_epoch(batching, max_tokens):
    mixed = mixture(4001, 4000, 2000, lengths=[(3, 15), (60, 99), (3, 99)], batching=batching)
    steps = list(sampler_of(mixed, 2, max_tokens=max_tokens).steps())
    which = dataset_of(mixed, np.concatenate(steps))
    position = np.repeat(np.arange(len(steps)), [len(step) for step in steps]) / len(steps)
    means = [position[which == d].mean() for d in range(3)]
    assert max(means) - min(means) < 0.1
    # Each dataset has rows in every quarter of the epoch.
    quarters = (position * 4).astype(int)
    assert all(set(which[quarters == quarter]) == {0, 1, 2} for quarter in range(4))


# Token budget


@temperatures
@batchings
@worlds
def test_no_batch_exceeds_the_token_budget_on_any_process(temperature, batching, world):
    mixed = mixture(7, 100, 1001, temperature=temperature, batching=batching, length_window=10)
    for number in range(2):
        for batches in by_rank(mixed, world, number, max_tokens=512):
            tokens = np.array([len(batch) * max(mixed.lengths[batch]) for batch in batches])
            assert tokens.max() <= 512
            # The budget is also used.
            assert np.median(tokens) > 0.85 * 512


@temperatures
@batchings
@worlds
def test_token_budget_reaches_every_row_and_epochs_continue_without_gap(temperature, batching, world):
    mixed = mixture(7, 100, 1001, temperature=temperature, batching=batching, length_window=10)
    sampler = sampler_of(mixed, world, max_tokens=512)
    steps = rows_of_steps(sampler, 5)
    if batching == "homogeneous":
        for step in steps:
            assert len(set(dataset_of(mixed, step))) == 1
    rows = np.concatenate(steps)
    assert np.bincount(rows, minlength=len(mixed)).min() >= 1
    start = 0
    for window in sampler.windows():
        own = rows[start : start + window.counts.sum()]
        if len(own) < window.counts.sum():  # the last epoch ended inside this window
            break
        walks = [
            mixed.offsets[d] + sampler.walk(d, int(window.drawn[d]), int(window.counts[d])) for d in range(len(SIZES))
        ]
        assert sorted(own) == sorted(np.concatenate(walks))
        start += len(own)
    assert start > 0.9 * len(rows)


def test_token_budget_splits_each_step_between_processes():
    mixed = mixture(7, 100, 1001)
    steps = rows_of_steps(sampler_of(mixed, 3, max_tokens=512), 2)
    ranks = [[*a, *b] for a, b in zip(*(by_rank(mixed, 3, number, max_tokens=512) for number in (0, 1)), strict=True)]
    for step, *batches in zip(steps, *ranks, strict=True):
        assert sorted(step) == sorted(np.concatenate(batches))


@pytest.mark.parametrize("temperature", [1, 2, INF, (5, 1)])
@worlds
def test_token_budget_keeps_homogeneous_batches_within_1_of_their_share(temperature, world):
    mixed = mixture(7, 100, 1001, temperature=temperature, batching="homogeneous", length_window=10)
    sampler = sampler_of(mixed, world, max_tokens=512)
    sampler.total_batches = 2 * len(sampler)
    which = np.array([dataset_of(mixed, step[:1])[0] for step in rows_of_steps(sampler, 3)])
    per_epoch = portions(len(sampler), 10, 1)
    sizes = per_epoch * 3
    due = expected_shares(sampler, sizes, 2 * len(sampler))
    had = np.cumsum(which[:, None] == np.arange(3), axis=0)[np.cumsum(sizes) - 1]
    assert np.abs(had - due).max() <= 1 + 1e-6


@temperatures
@worlds
def test_token_budget_keeps_mixed_rows_within_1_of_their_share(temperature, world):
    mixed = mixture(7, 100, 1001, temperature=temperature, length_window=10)
    sampler = sampler_of(mixed, world, max_tokens=512)
    drawn = np.array([window.drawn for window in islice(sampler.windows(), 100)])
    assert np.abs(drawn - drawn.sum(axis=1, keepdims=True) * mixed.probabilities).max() <= 1 + 1e-6


@batchings
def test_number_of_steps_follows_from_the_tokens_of_all_rows(batching):
    mixed = mixture(7, 100, 1001, batching=batching)
    for world in (1, 2, 3):
        assert len(sampler_of(mixed, world, max_tokens=512)) == int(np.ceil(mixed.lengths.sum() / (512 * world)))


@batchings
@pytest.mark.parametrize("left", range(12))
def test_every_process_has_rows_under_a_token_budget_for_any_remainder(batching, left):
    mixed = mixture(36 + left, lengths=[(10, 10)], batching=batching)
    rows = np.concatenate([all_rows(by_rank(mixed, 3, number, max_tokens=40)) for number in range(4)])
    assert np.bincount(rows).min() >= 3


@worlds
def test_homogeneous_batches_fill_the_token_budget(world):
    mixed = mixture(5, 301, lengths=[(10, 10), (7, 7)], batching="homogeneous", temperature=2)
    for batches in by_rank(mixed, world, max_tokens=43):
        assert {(int(dataset_of(mixed, batch)[0]), len(batch)) for batch in batches} == {(0, 4), (1, 6)}


def test_row_as_long_as_the_budget_forms_one_batch():
    mixed = TaskMixture({"a": of_lengths("a", [50, 50, 50, 10, 10, 10, 10, 10])})
    lengths = sorted(sorted(mixed.lengths[batch].tolist()) for batch in sampler_of(mixed, max_tokens=50))
    assert lengths == [[10] * 5, [50], [50], [50]]


@batchings
def test_row_longer_than_the_budget_is_named(batching):
    for lengths, window in (([9, 50, 51, 9], 2), ([51, 9], 0), ([9, 51], 1)):
        datasets = {name: of_lengths(name, lengths if name == "long" else [9, 9]) for name in ("a", "long", "z")}
        message = (
            rf"^`max_tokens_per_batch` is 50, but a row of long has 51 sub-words \(window {window}\)\. "
            rf"Raise `max_tokens_per_batch`"
        )
        with pytest.raises(ValueError, match=message):
            sampler_of(TaskMixture(datasets, batching=batching), max_tokens=50)


@batchings
def test_windows_without_sub_words_fit_a_token_budget(batching):
    mixed = TaskMixture({"d": of_lengths("d", [5, 5, 0])}, batching=batching)
    sampler = sampler_of(mixed, max_tokens=10)
    assert {row for number in range(4) for batch in epoch(sampler, number) for row in batch} == {0, 1, 2}


@batchings
def test_token_budget_epochs_are_equal_in_sequence_and_directly(batching):
    mixed = mixture(7, 100, 1001, temperature=2, batching=batching)
    sampler = sampler_of(mixed, 2, max_tokens=300)
    in_turn = [epoch(sampler, number) for number in range(4)]
    assert in_turn == [epoch(sampler_of(mixed, 2, max_tokens=300), number) for number in range(4)]
    assert epoch(sampler, 4) == epoch(sampler, 4)


# Gaps


@batchings
@worlds
def test_gaps_change_the_shares_of_their_epoch_and_a_later_epoch_can_be_planned_alone(batching, world):
    mixed = mixture(60, 100, 400, batching=batching, length_window=3, headroom=True)
    gaps = [None, np.array([1.0, 0.0, 0.0]), None, np.array([0.0, 0.2, 0.2])]
    whole = sampler_of(mixed, world)
    due, drawn, epochs = np.zeros(3), np.zeros(3, dtype=int), []
    for number in range(5):
        whole.gaps = gaps[: number + 1]  # those of later epochs are not known yet
        whole.set_epoch(number)
        epochs.append(list(whole.steps()))
        counts = Counter(dataset_of(mixed, np.concatenate(epochs[-1])).tolist())
        due += mixed.probabilities_at(0.0, gaps[number] if number < 4 else None) * sum(counts.values())
        drawn += [counts[0], counts[1], counts[2]]
        behind = 1 if batching == "mixed" else 16 * world
        assert np.abs(due - drawn).max() < behind + 1e-6
    for number in (4, 1, 3):
        alone = sampler_of(mixed, world)
        alone.gaps = gaps[: number + 1]
        alone.set_epoch(number)
        assert all(np.array_equal(*pair) for pair in zip(epochs[number], alone.steps(), strict=True))


def test_every_row_is_reached_with_a_gap_of_a_different_dataset():
    mixed = mixture(7, 300, headroom=True)
    sampler = sampler_of(mixed)
    sampler.gaps = [np.array([1.0, 0.0])] * 4
    rows = np.concatenate([np.concatenate(list(epoch(sampler, number))) for number in range(4)])
    assert np.bincount(rows, minlength=len(mixed)).min() >= 1


def test_token_budget_excludes_headroom():
    with pytest.raises(ValueError, match="`max_tokens_per_batch` cannot be combined with `headroom`"):
        sampler_of(mixture(7, 100, headroom=True), max_tokens=200)
