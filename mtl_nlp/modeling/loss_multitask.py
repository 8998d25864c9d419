"""The joint loss of several tasks over one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .tasks_multitask import Task

_Count = TypeVar("_Count", int, float)


@dataclass(frozen=True)
class StepCounts:
    """How many labels one optimizer step holds, over all micro-batches and processes.

    Attributes:
        rows: N, rows in all.
        task_rows: n_t, rows that carry a label of task t.
        units: u_t, labelled units (words, texts) of task t, or the sum of their weights.
    """

    rows: int
    task_rows: dict[str, int]
    units: dict[str, float]

    def __add__(self, other: StepCounts) -> StepCounts:
        """The counts of both together."""

        def add(a: dict[str, _Count], b: dict[str, _Count]) -> dict[str, _Count]:
            return {task: a.get(task, 0) + b.get(task, 0) for task in {**a, **b}}

        return StepCounts(self.rows + other.rows, add(self.task_rows, other.task_rows), add(self.units, other.units))


def count_step(batches: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> StepCounts:
    """Count the rows and labelled units of batches.

    Args:
        batches: the batches, each as the collator makes it.
        tasks: the tasks by name, whose label kinds count the units.
    """
    present = [(task, batch["labels"][task]) for batch in batches for task in tasks if len(batch["rows"][task])]
    counts = [tasks[task].kind.count_units(targets) for task, targets in present]
    # All of them at once: one wait for the device.
    found = torch.stack(counts).tolist() if counts else []
    units: dict[str, float] = dict.fromkeys(tasks, 0)
    for (task, _), count in zip(present, found, strict=True):
        units[task] += count
    return StepCounts(
        rows=sum(len(batch["input_ids"]) for batch in batches),
        task_rows={task: sum(len(batch["rows"][task]) for batch in batches) for task in tasks},
        units=units,
    )


def joint_loss(
    loss_sums: Mapping[str, torch.Tensor],
    counts: StepCounts,
    weights: Mapping[str, float | torch.Tensor] | None = None,
    scale: str = "rows",
) -> torch.Tensor:
    """The joint loss L = Σ_t w_t · (n_t / N) · CE_t / u_t, or this batch's share of it.

    For one task it is the mean loss that the stock classes compute. n_t / N makes a batch that mixes datasets and a
    row of batches of one dataset each the same objective in expectation, so the mixture sets how much a dataset
    counts. A task without labelled units adds zero, but touches its parameters.

    Args:
        loss_sums: CE_t of the micro-batch, scalars.
        counts: the counts of the whole step; with those of the micro-batch itself, its own mean.
        weights: w_t, numbers or scalars (gradients reach these); 1 where a task is not named.
        scale: `rows` for the formula, `per_task` for the same without n_t / N.

    Returns:
        A scalar; the shares of a step's micro-batches add up to its loss.
    """
    given = {**dict.fromkeys(loss_sums, 1.0), **(weights or {})}
    learned = {task: weight for task, weight in given.items() if isinstance(weight, torch.Tensor)}
    factors = []
    for task in loss_sums:
        share = counts.task_rows[task] / max(counts.rows, 1) if scale == "rows" else 1.0
        number = 1.0 if task in learned else given[task]
        # Units of small weights may add up to less than one.
        factors.append(number * share / (counts.units[task] or 1.0))
    sums = torch.stack(list(loss_sums.values()))
    weighted = sums * torch.tensor(factors, dtype=sums.dtype, device=sums.device)
    if learned:
        one = sums.new_ones(())
        weighted = weighted * torch.stack([learned.get(task, one).to(sums) for task in loss_sums])
    return weighted.sum()


class ZeroGradients(torch.autograd.Function):
    """Its first input as it is, with a gradient of zero for all others."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *touched: torch.Tensor) -> torch.Tensor:
        # Not the tensors: FSDP frees parameters between forward and backward.
        ctx.likes = [(value.shape, value.dtype, value.device) for value in touched]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gradient, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.likes)


def zero_loss(*touched: torch.Tensor) -> torch.Tensor:
    """Zero, a scalar, with a gradient of zero for every input."""
    return ZeroGradients.apply(torch.zeros((), device=touched[0].device), *touched)
