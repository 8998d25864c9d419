"""Sampling probabilities from dataset sizes."""

from __future__ import annotations

import numpy as np


def temperature_probabilities(sizes: np.ndarray, temperature: float, limits: np.ndarray | None = None) -> np.ndarray:
    """p_d ∝ n_d^(1/T), none above its limit.

    Args:
        sizes: n_d, shape (datasets,).
        temperature: T, above 0.
        limits: the most that each p_d may be, shape (datasets,), with a sum of at least 1. What a dataset gives up goes
            to the others in their proportions, until none is above (UniMax's loop).
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
