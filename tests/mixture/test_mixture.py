from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.mixture import TaskMixture


def dataset(size: int, name: str = "d") -> EncodedDataset:
    lengths = [3 + number % 5 for number in range(size)]
    rows = Dataset.from_dict({"length": lengths, "row": list(range(size)), "name": [name] * size})
    return EncodedDataset(name, rows, {"t": ["x"] * size}, 0, 0, "f")


def mixture(*sizes: int, **options: Any) -> TaskMixture:
    return TaskMixture({f"d{n}": dataset(size, f"d{n}") for n, size in enumerate(sizes)}, **options)


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 5, 100, float("inf")])
def test_probabilities_are_sizes_to_the_power_of_one_over_the_temperature(temperature):
    sizes = np.array([7, 100, 1001])
    expected = sizes ** (1 / temperature)
    np.testing.assert_allclose(
        mixture(*sizes, temperature=temperature).probabilities, expected / expected.sum(), rtol=1e-12
    )


def test_epoch_has_the_rows_of_all_datasets():
    assert len(mixture(7, 100, 1001, temperature=5)) == 1108


def test_positions_count_through_all_datasets():
    mixed = mixture(3, 2)
    assert [(row["name"], row["row"]) for row in map(mixed.__getitem__, range(5))] == [
        ("d0", 0),
        ("d0", 1),
        ("d0", 2),
        ("d1", 0),
        ("d1", 1),
    ]
    assert mixed.lengths.tolist() == [3, 4, 5, 3, 4]


def test_rows_are_returned_in_the_requested_order():
    mixed = mixture(3, 2)
    order = [4, 0, 3, 0, 2]
    assert [*mixed.__getitems__(order)] == [mixed[index] for index in order]


def test_size_cap_limits_the_number_of_rows():
    expected = np.array([7, 50, 50]) ** 0.5
    mixed = mixture(7, 100, 1001, temperature=2, size_cap=50)
    np.testing.assert_allclose(mixed.probabilities, expected / expected.sum(), rtol=1e-12)
    assert len(mixed) == 1108


@pytest.mark.parametrize("temperature", [1, 2, 5, float("inf")])
@pytest.mark.parametrize("max_repeats", [1, 3.5])
def test_max_repeats_limits_the_passes_over_a_dataset(temperature, max_repeats):
    mixed = mixture(7, 100, 1001, temperature=temperature, max_repeats=max_repeats)
    passes = mixed.probabilities * len(mixed) / mixed.sizes
    assert passes.max() <= max_repeats + 1e-9
    assert mixed.probabilities.sum() == pytest.approx(1.0)
    free = temperature == 1 or max_repeats == 1
    np.testing.assert_allclose(passes[0], 1 if free else max_repeats, rtol=1e-9)


def test_size_cap_and_max_repeats_can_be_combined():
    mixed = mixture(10, 100, 890, temperature=1, size_cap=100, max_repeats=2)
    np.testing.assert_allclose(mixed.probabilities, [0.02, 0.2, 0.78], rtol=1e-9)


def test_given_probabilities_are_used_in_any_order():
    mixed = mixture(7, 100, probabilities={"d1": 0.25, "d0": 0.75})
    assert mixed.probabilities.tolist() == [0.75, 0.25]
    assert mixed.probabilities_at(1.0).tolist() == [0.75, 0.25]
    rounded = mixture(7, 100, probabilities={"d0": 0.3333333, "d1": 0.6666662})
    assert rounded.probabilities.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 5.0), (0.25, 4.0), (0.5, 3.0), (1.0, 1.0)])
def test_temperature_changes_linearly_between_two_values(progress, temperature):
    moving = mixture(7, 100, 1001, temperature=[5, 1])
    np.testing.assert_array_equal(moving.probabilities, moving.probabilities_at(0.0))
    np.testing.assert_allclose(
        moving.probabilities_at(progress), mixture(7, 100, 1001, temperature=temperature).probabilities, rtol=1e-12
    )


@pytest.mark.parametrize("temperature", [3.0, [3.0, 3.0], float("inf"), [float("inf"), float("inf")]])
def test_single_temperature_is_constant(temperature):
    fixed = mixture(7, 100, temperature=temperature)
    np.testing.assert_array_equal(fixed.probabilities_at(0.0), fixed.probabilities_at(0.7))
    assert np.isfinite(fixed.probabilities).all()


def test_limits_hold_while_the_temperature_changes():
    moving = mixture(7, 100, 1001, temperature=[1, 100], max_repeats=2)
    for progress in np.linspace(0.0, 1.0, 11):
        assert (moving.probabilities_at(progress) * len(moving) / moving.sizes).max() <= 2 + 1e-9


def test_mixture_without_datasets_is_refused():
    with pytest.raises(ValueError, match=r"at least one dataset\. Found none"):
        TaskMixture({})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"`temperature` should be above 0.*Found 0\."),
        ({"temperature": float("nan")}, "`temperature` should be above 0.*Found nan"),
        ({"temperature": [5, 1, 2]}, r"`temperature` .*two such values\. Found \[5, 1, 2\]"),
        ({"size_cap": 0}, r"`size_cap` should be at least 1\. Found 0"),
        ({"max_repeats": 0.5}, r"`max_repeats` should be at least 1.*Found 0\.5"),
        ({"probabilities": {"d0": 1.0}}, "`probabilities` should name every dataset. 'd1' is missing"),
        ({"batching": "mixd"}, r"`batching` should be mixed or homogeneous\. Found 'mixd'"),
        ({"length_window": 0}, r"`length_window` should be at least 1\. Found 0"),
        ({"temperature": 0.001}, "`temperature` is so low that 'd0' would never be drawn. Raise it"),
        ({"temperature": [1, 0.001]}, "`temperature` is so low that 'd0' would never be drawn"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mixture(7, 100, **options)


def test_dataset_without_rows_is_named():
    with pytest.raises(ValueError, match=r"should have rows\. 'd1' has none"):
        mixture(3, 0)


def test_half_of_the_probability_follows_the_gaps():
    mixed = mixture(7, 100, 1001, temperature=[5, 1])
    gaps = np.array([0.3, 0.0, 0.1])
    for progress in (0.0, 0.5, 1.0):
        expected = 0.5 * mixed.probabilities_at(progress) + 0.5 * np.array([0.75, 0.0, 0.25])
        np.testing.assert_allclose(mixed.probabilities_at(progress, gaps), expected, rtol=1e-12)
        for nothing in (None, np.zeros(3)):
            assert mixed.probabilities_at(progress, nothing).tolist() == mixed.probabilities_at(progress).tolist()


def test_gaps_stay_within_the_largest_number_of_passes_and_mix_with_given_probabilities():
    mixed = mixture(10, 90, max_repeats=2)
    np.testing.assert_allclose(mixed.probabilities_at(0.0, np.array([1.0, 0.0])), [0.2, 0.8], rtol=1e-12)
    mixed = mixture(10, 90, probabilities={"d0": 0.4, "d1": 0.6})
    np.testing.assert_allclose(mixed.probabilities_at(0.0, np.array([0.0, 1.0])), [0.2, 0.8], rtol=1e-12)


def test_headroom_needs_two_datasets():
    with pytest.raises(ValueError, match=r"`headroom` needs at least two datasets\. Found only 'd0'"):
        mixture(7, headroom=True)
