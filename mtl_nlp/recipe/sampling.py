"""The rules for sampling datasets, which the recipe and the mixture share. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from mtl_nlp.messages import did_you_mean

Batching = Literal["mixed", "homogeneous"]
"""The values of `batching`."""


def check_sampling(
    names: Iterable[str],
    temperature: float | Sequence[float],
    size_cap: int | None,
    max_repeats: float | None,
    probabilities: Mapping[str, float] | None,
    batching: str,
    length_window: int,
    headroom: object = False,
) -> None:
    """Check the arguments of [`TaskMixture`] that define how datasets are sampled.

    Args:
        names: the names of the datasets.
        temperature: the temperature, or its values at the start and at the end of training.
        size_cap: the largest number of rows that counts for a dataset.
        max_repeats: the largest number of passes over a dataset in one epoch.
        probabilities: the probability of every dataset, instead of the three arguments above.
        batching: `mixed` or `homogeneous`.
        length_window: the number of batches inside which rows are grouped by length.
        headroom: whether the probabilities follow the validation scores; any value that is not false.

    Raises:
        ValueError: if a value is out of range, or two values contradict each other. The message names the argument.
    """
    names = list(names)
    if headroom and len(names) == 1:
        raise ValueError(f"`headroom` needs at least two datasets. Found only {names[0]!r}. Leave out `headroom`.")
    if batching not in get_args(Batching):
        raise ValueError(f"`batching` should be {' or '.join(get_args(Batching))}. Found {batching!r}.")
    if length_window < 1:
        raise ValueError(f"`length_window` should be at least 1. Found {length_window}.")
    temperatures = np.atleast_1d(np.asarray(temperature, dtype=float))
    if temperatures.shape not in {(1,), (2,)} or not (temperatures > 0.0).all():
        raise ValueError(f"`temperature` should be above 0, or two such values. Found {temperature}.")
    if len(set(temperatures)) == 2 and not np.isfinite(temperatures).all():
        raise ValueError(f"`temperature` can only move between finite values. Found {temperature}.")
    if size_cap is not None and size_cap < 1:
        raise ValueError(f"`size_cap` should be at least 1. Found {size_cap}.")
    if max_repeats is not None and not max_repeats >= 1.0:
        raise ValueError(
            f"`max_repeats` should be at least 1: with a smaller value, the datasets would not fill an epoch. "
            f"Found {max_repeats}."
        )
    if probabilities is None:
        return
    if size_cap is not None or max_repeats is not None or (temperatures != 1.0).any():
        raise ValueError(
            "`probabilities` cannot be combined with `temperature`, `size_cap` or `max_repeats`. Leave these out."
        )
    _check_probabilities(names, probabilities)


def _check_probabilities(names: Sequence[str], probabilities: Mapping[str, float]) -> None:
    if unknown := [name for name in probabilities if name not in names]:
        raise ValueError(
            f"`probabilities` names {unknown[0]!r}, which is not a dataset. {did_you_mean(unknown[0], names)}"
        )
    if missing := [name for name in names if name not in probabilities]:
        raise ValueError(f"`probabilities` should name every dataset. {missing[0]!r} is missing.")
    for name, probability in probabilities.items():
        if not 0.0 < probability <= 1.0:
            raise ValueError(f"`probabilities` should be above 0 and at most 1. Found {probability} for {name!r}.")
    if abs(total := sum(probabilities.values()) - 1.0) > 1e-6:
        raise ValueError(f"`probabilities` should sum to 1. Found {total + 1.0:g}.")
