"""The joint loss of several tasks over one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .tasks_multitask import Task
from .unit_losses_multitask import constants

_Count = TypeVar("_Count", int, float)


@dataclass(frozen=True)
class StepCounts:
    """Numbers of rows and labels in one optimizer step, over all micro-batches and processes.

    Attributes:
        rows: N, the number of all rows.
        task_rows: n_t, the number of rows with a label for task t.
        units: u_t, the number of labelled units (words, texts, decisions) of task t, or the sum of their weights.
    """

    rows: int
    task_rows: dict[str, int]
    units: dict[str, float]

    def __add__(self, other: StepCounts) -> StepCounts:
        """Return the sums of both counts; a missing task counts as zero."""

        def add(a: dict[str, _Count], b: dict[str, _Count]) -> dict[str, _Count]:
            return {task: a.get(task, 0) + b.get(task, 0) for task in {**a, **b}}

        return StepCounts(self.rows + other.rows, add(self.task_rows, other.task_rows), add(self.units, other.units))


def count_step(batches: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> StepCounts:
    """Count the rows and labelled units of batches.

    Args:
        batches: batches from the collator.
        tasks: the tasks by name. Each task's label kind counts its units, or sums their weights.
    """
    task_rows, units = count_labels(batches, tasks)
    return StepCounts(sum(len(batch["input_ids"]) for batch in batches), task_rows, units)


def count_labels(
    batches: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]
) -> tuple[dict[str, int], dict[str, float]]:
    """Return the numbers of rows and of units of each task, see `StepCounts`.

    Args:
        batches: batches from the collator, of which only `rows`, `labels` and `weights` are read.
        tasks: the tasks by name.
    """
    present = [(task, batch) for batch in batches for task in tasks if len(batch["rows"][task])]
    counts = [
        tasks[task].kind.count_units(batch["labels"][task], unit_weights(batch, tasks[task])) for task, batch in present
    ]
    # All counts are copied at once, so that the host waits for the device only once.
    found = torch.stack(counts).tolist() if counts else []
    units: dict[str, float] = dict.fromkeys(tasks, 0)
    for (task, _), count in zip(present, found, strict=True):
        units[task] += count
    return {task: sum(len(batch["rows"][task]) for batch in batches) for task in tasks}, units


def unit_weights(batch: Mapping[str, Any], task: Task) -> torch.Tensor | None:
    """Return the weights of a task's units that a batch gives its rows; None for a batch without weights.

    Args:
        batch: a batch from the collator.
        task: the task.

    Returns:
        A tensor that is broadcastable to the units of the task's labels in the batch.
    """
    weights = batch.get("weights")
    return None if weights is None else task.kind.spread(weights[batch["rows"][task.name]], batch["labels"][task.name])


def joint_loss(
    loss_sums: Mapping[str, torch.Tensor],
    counts: StepCounts,
    weights: Mapping[str, float | torch.Tensor] | None = None,
    scale: str = "rows",
) -> torch.Tensor:
    """Compute the joint loss L = Σ_t w_t · (n_t / N) · CE_t / u_t, or a micro-batch's share of L.

    For a single task, L equals the mean loss of the stock classes. The factor n_t / N gives mixed and homogeneous
    batches the same objective in expectation, so that the mixture sets how much each dataset counts. A task without
    labelled units adds zero to L, and its parameters get a gradient of zero.

    Args:
        loss_sums: CE_t of the micro-batch, a scalar per task.
        counts: the counts of the optimizer step. With the counts of the micro-batch, the result is the micro-batch's
            own loss.
        weights: w_t, a number or a scalar tensor (which gets a gradient) per task; 1 for missing tasks.
        scale: `rows` for the formula above, `per_task` for the formula without n_t / N.

    Returns:
        A scalar. The shares of a step's micro-batches add up to the loss of the step.
    """
    return task_losses(loss_sums, counts, weights, scale).sum()


def task_losses(
    loss_sums: Mapping[str, torch.Tensor],
    counts: StepCounts,
    weights: Mapping[str, float | torch.Tensor] | None = None,
    scale: str = "rows",
) -> torch.Tensor:
    """Compute each task's term w_t · (n_t / N) · CE_t / u_t of the joint loss, see `joint_loss`.

    Returns:
        The terms in the order of `loss_sums`, shape (tasks,).
    """
    given = {**dict.fromkeys(loss_sums, 1.0), **(weights or {})}
    learned = {task: weight for task, weight in given.items() if isinstance(weight, torch.Tensor)}
    factors = []
    for task in loss_sums:
        number = 1.0 if task in learned else given[task]
        # A sum of weights can be below 1, so `max(units, 1)` would be wrong.
        factors.append(number * share_of_rows(task, counts, scale) / (counts.units[task] or 1.0))
    sums = torch.stack(list(loss_sums.values()))
    weighted = sums * constants(factors, sums)
    if learned:
        one = sums.new_ones(())
        weighted = weighted * torch.stack([learned.get(task, one).to(sums) for task in loss_sums])
    return weighted


def share_of_rows(task: str, counts: StepCounts, scale: str) -> float:
    """Return the factor n_t / N of a task's loss with the scale `rows`, and 1 with `per_task`."""
    return counts.task_rows[task] / max(counts.rows, 1) if scale == "rows" else 1.0


class ZeroGradients(torch.autograd.Function):
    """The identity of the first input. Every other input gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *touched: torch.Tensor) -> torch.Tensor:
        # The tensors are not saved, since FSDP frees parameters between forward and backward.
        ctx.likes = [(value.shape, value.dtype, value.device) for value in touched]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gradient, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.likes)


def zero_loss(*touched: torch.Tensor) -> torch.Tensor:
    """Return the scalar zero, whose gradient with respect to every input is zero."""
    return ZeroGradients.apply(torch.zeros((), device=touched[0].device), *touched)
