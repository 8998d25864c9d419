"""Parameters of an optimizer that have a learning rate of their own."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def set_learning_rate(
    optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], learning_rate: float
) -> None:
    """Give some of an optimizer's parameters a learning rate of their own, before its first step.

    Args:
        optimizer: each of its groups is split in two, so that what else they say (weight decay, ...) stays.
        parameters: those to take; what the optimizer has not, such as frozen ones, is passed over.
        learning_rate: theirs.
    """
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        taken = [parameter for parameter in group["params"] if id(parameter) in chosen]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        optimizer.add_param_group({**group, "params": taken, "lr": learning_rate})
