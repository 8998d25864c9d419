"""Checks of values that the recipe and the Python interface share. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping


def check_not_negative(name: str, value: float) -> None:
    """Check that a number is finite and at least 0.

    Args:
        name: the name of the argument, for the message.
        value: the value of the argument.

    Raises:
        ValueError: if the number is negative, infinite or NaN.
    """
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"`{name}` should be finite and at least 0. Found {value}.")


def check_loss_weights(weights: Mapping[str, float]) -> None:
    """Check that the weights of tasks in the joint loss are finite and at least 0.

    Args:
        weights: task -> weight.

    Raises:
        ValueError: if a weight is negative, infinite or NaN.
    """
    for task, weight in weights.items():
        if not 0.0 <= weight < float("inf"):
            raise ValueError(f"`loss_weights` should be finite and at least 0. Found {weight} for {task!r}.")
