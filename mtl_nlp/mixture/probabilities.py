"""Sampling probabilities from dataset sizes."""

from __future__ import annotations

import numpy as np


def temperature_probabilities(sizes: np.ndarray, temperature: float, limits: np.ndarray | None = None) -> np.ndarray:
    """Return p_d ∝ n_d^(1/T), with no p_d above its limit; shape (datasets,).

    Args:
        sizes: n_d, shape (datasets,).
        temperature: T, above 0.
        limits: upper limit of each p_d, shape (datasets,), with a sum of at least 1. The surplus of a limited dataset
            goes to the other datasets in proportion to their p_d, until no p_d is above its limit (the loop of UniMax,
            Chung et al. 2023).
    """
    exponents = np.log(sizes) / temperature
    weights = np.exp(exponents - exponents.max())
    probabilities = weights / weights.sum()
    if limits is None:
        return probabilities
    limited = np.zeros(len(sizes), dtype=bool)
    while (over := (probabilities > limits) & ~limited).any():
        limited |= over
        left = 1.0 - limits[limited].sum()
        free = np.where(limited, 0.0, weights)
        probabilities = np.where(limited, limits, left * free / max(free.sum(), np.finfo(float).tiny))
    return probabilities / probabilities.sum()
