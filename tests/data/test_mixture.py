from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.mixture import TaskMixture


def dataset(size: int, name: str = "d") -> EncodedDataset:
    lengths = [3 + number % 5 for number in range(size)]
    rows = Dataset.from_dict({"length": lengths, "row": list(range(size)), "name": [name] * size})
    return EncodedDataset(name, rows, {"t": ["x"] * size}, 0, 0, "f")


def mixture(*sizes: int, temperature: float = 1.0) -> TaskMixture:
    return TaskMixture({f"d{n}": dataset(size, f"d{n}") for n, size in enumerate(sizes)}, temperature)


@pytest.mark.parametrize("temperature", [1, 2, 5, 100])
def test_probabilities_are_sizes_to_the_power_of_one_over_the_temperature(temperature):
    sizes = np.array([7, 100, 1001])
    expected = sizes ** (1 / temperature)
    np.testing.assert_allclose(
        mixture(*sizes, temperature=temperature).probabilities, expected / expected.sum(), rtol=1e-12
    )


def test_an_epoch_has_as_many_rows_as_all_datasets():
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


def test_several_rows_come_in_the_order_asked_for():
    mixed = mixture(3, 2)
    order = [4, 0, 3, 0, 2]
    assert mixed.__getitems__(order) == [mixed[index] for index in order]


def test_a_mixture_needs_a_dataset_and_a_temperature_of_at_least_one():
    with pytest.raises(ValueError, match=r"at least one dataset\. Found none"):
        TaskMixture({})
    for temperature in (0.5, float("nan")):
        with pytest.raises(ValueError, match=f"`temperature` should be at least 1. Found {temperature}"):
            mixture(3, temperature=temperature)
