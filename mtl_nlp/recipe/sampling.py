"""How often each dataset is drawn: the probabilities, and what is allowed to be asked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

BATCHINGS = ("mixed", "homogeneous")


def check_sampling(
    names: Iterable[str],
    temperature: float | Sequence[float],
    size_cap: int | None,
    max_repeats: float | None,
    probabilities: Mapping[str, float] | None,
) -> None:
    """Check how datasets are to be drawn; arguments as in [`TaskMixture`].

    Raises:
        ValueError: if a value is out of its range, or they contradict each other; the message has the argument's name.
    """
    temperatures = np.atleast_1d(np.asarray(temperature, dtype=float))
    if temperatures.shape not in {(1,), (2,)} or not (temperatures > 0.0).all():
        raise ValueError(f"`temperature` should be above 0, or two such values. Found {temperature}.")
    if len(set(temperatures)) == 2 and not np.isfinite(temperatures).all():
        raise ValueError(f"`temperature` can only move between finite values. Found {temperature}.")
    if size_cap is not None and size_cap < 1:
        raise ValueError(f"`size_cap` should be at least 1. Found {size_cap}.")
    if max_repeats is not None and not max_repeats >= 1.0:
        raise ValueError(
            f"`max_repeats` should be at least 1: with less, all datasets together would not fill an epoch. "
            f"Found {max_repeats}."
        )
    if probabilities is None:
        return
    if size_cap is not None or max_repeats is not None or (temperatures != 1.0).any():
        raise ValueError("`probabilities` stand alone: leave out `temperature`, `size_cap` and `max_repeats`.")
    names = list(names)
    if unknown := [name for name in probabilities if name not in names]:
        raise ValueError(f"`probabilities` names {unknown[0]!r}, which is no dataset. Valid: {', '.join(names)}.")
    if missing := [name for name in names if name not in probabilities]:
        raise ValueError(f"`probabilities` should name every dataset. {missing[0]!r} is missing.")
    for name, probability in probabilities.items():
        if not 0.0 < probability <= 1.0:
            raise ValueError(f"`probabilities` should be above 0. Found {probability} for {name!r}; or remove it.")
    if abs(total := sum(probabilities.values()) - 1.0) > 1e-6:
        raise ValueError(f"`probabilities` should sum to 1. Found {total + 1.0:g}.")
