"""The values that loss weights may have. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping


def check_loss_weights(weights: Mapping[str, float]) -> None:
    """Check that loss weights are finite and at least 0.

    Args:
        weights: the weight of each task by the task's name.

    Raises:
        ValueError: if a weight is out of range; the message names the task.
    """
    for task, weight in weights.items():
        if not 0.0 <= weight < float("inf"):
            raise ValueError(f"the weight of {task!r} should be finite and at least 0, found {weight}")
