"""The mixture: several encoded datasets as one, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from mtl_nlp.data.encoding import EncodedDataset


class TaskMixture(TorchDataset):
    """Datasets that are trained on together, p_d ∝ n_d^(1/T).

    The temperature is that of mBERT and T5's mixtures (Raffel et al. 2020, section 3.5.2): T = 1 draws in proportion
    to size, a large T uniformly.

    Args:
        datasets: encoded training splits by name.
        temperature: T, at least 1.

    Raises:
        ValueError: if there is no dataset, or T is below 1.
    """

    def __init__(self, datasets: Mapping[str, EncodedDataset], temperature: float = 1.0) -> None:
        if not datasets:
            raise ValueError("A TaskMixture needs at least one dataset. Found none.")
        if not temperature >= 1.0:
            raise ValueError(f"Parameter `temperature` should be at least 1. Found {temperature}.")
        self.datasets = dict(datasets)
        self.sizes = np.array([len(dataset.windows) for dataset in datasets.values()])
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        scaled = self.sizes ** (1.0 / temperature)
        self.probabilities = scaled / scaled.sum()
        self.lengths = np.concatenate([dataset.lengths for dataset in datasets.values()])

    def __len__(self) -> int:
        """Rows (windows) of all datasets, which is also the length of an epoch."""
        return int(self.sizes.sum())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at a position counted through all datasets."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows, fetched from each dataset at once."""
        positions = np.asarray(indices)
        which = np.searchsorted(self.offsets, positions, side="right") - 1
        rows: list[dict[str, Any]] = [{}] * len(positions)
        for number, dataset in enumerate(self.datasets.values()):
            places = np.flatnonzero(which == number)
            if len(places):
                fetched = dataset.windows[(positions[places] - self.offsets[number]).tolist()]
                for place, values in zip(places, zip(*fetched.values(), strict=True), strict=True):
                    rows[place] = dict(zip(fetched, values, strict=True))
        return rows
