"""Checks of values that the recipe and the Python interface share. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

_LARGEST = 3.4028234e38
"""The largest number of float32, rounded down."""


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


def check_positive(name: str, value: float) -> None:
    """Check that a number is finite and above 0.

    Args:
        name: the name of the argument, for the message.
        value: the value of the argument.

    Raises:
        ValueError: if the number is zero, negative, infinite or NaN.
    """
    if not 0.0 < value < float("inf"):
        raise ValueError(f"`{name}` should be finite and above 0. Found {value}.")


def check_fits_float32(name: str, value: float) -> None:
    """Check that a number that is not negative is finite in float32, the type of weights.

    Args:
        name: the name of the argument, for the message.
        value: the value of the argument.

    Raises:
        ValueError: if the number is negative, NaN, or infinite in float32.
    """
    check_not_negative(name, value)
    if value > _LARGEST:
        raise ValueError(f"`{name}` should be at most {_LARGEST:.2g}, the limit of float32. Found {value}.")


def check_loss_weights(weights: Mapping[str, float]) -> None:
    """Check that the weights of tasks in the joint loss are finite in float32 and at least 0.

    Args:
        weights: task -> weight.

    Raises:
        ValueError: if a weight is negative, infinite or NaN.
    """
    for task, weight in weights.items():
        if not 0.0 <= weight <= _LARGEST:
            raise ValueError(f"`loss_weights` should be finite and at least 0. Found {weight} for {task!r}.")
