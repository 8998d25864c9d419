"""Checks of values that the recipe and the Python interface share. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

LARGEST = 3.4028234e38
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


LossWeight = float | Sequence[float]
"""The weight of a task in the joint loss; a pair moves linearly from its first to its second value in training."""


def ends_of(weight: LossWeight) -> tuple[float, float]:
    """Return the values of a weight at the start and at the end of training.

    Raises:
        ValueError: if the weight is neither a number nor a pair of numbers. A boolean is not a number.
    """
    ends = [weight, weight] if isinstance(weight, int | float) else list(weight)
    numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2:
        raise ValueError(f"should be a number or a pair of numbers. Found {weight!r:.80}.")
    return numbers[0], numbers[1]


def check_loss_weight(weight: LossWeight) -> None:
    """Check that the weight of a task in the joint loss is finite in float32 and at least 0.

    Raises:
        ValueError: if the weight is negative, infinite or NaN, or is neither a number nor a pair of numbers.
    """
    if not all(0.0 <= end <= LARGEST for end in ends_of(weight)):
        raise ValueError(f"should be finite and at least 0. Found {weight}.")


def check_loss_weights(weights: Mapping[str, LossWeight]) -> None:
    """Check that the weights of tasks in the joint loss are finite in float32 and at least 0.

    Args:
        weights: task -> weight.

    Raises:
        ValueError: if a weight is negative, infinite or NaN, or is neither a number nor a pair of numbers.
    """
    for task, weight in weights.items():
        try:
            check_loss_weight(weight)
        except ValueError as error:
            raise ValueError(f"`loss_weights.{task}` {error}") from error


def check_weight_is_left(weights: Mapping[str, LossWeight], tasks: Collection[str]) -> None:
    """Check that the tasks of a training do not all have the weight 0 at the start or at the end of training.

    Args:
        weights: task -> weight; 1 for a task that is not named.
        tasks: the trained tasks.

    Raises:
        ValueError: if all tasks have the weight 0 at the same time.
    """
    ends = [ends_of(weights.get(task, 1.0)) for task in tasks]
    for number, time in enumerate(("start", "end")):
        if ends and not any(of_task[number] for of_task in ends):
            raise ValueError(
                f"some task should have a loss weight above 0 at any time. Found 0 for every task at the {time} of "
                f"training."
            )
