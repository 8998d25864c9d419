"""Skipping: shares of the joint loss that are not finite are left out, and so are steps with such a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from mtl_nlp.messages import counted
from mtl_nlp.modeling.loss_multitask import count_step, zero_loss
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.training.divergence import has_wrong_gradient
from mtl_nlp.training.progress import Progress

MOST_IN_A_ROW = 10
"""The number of steps in a row with a skip of the same task after which a run has diverged.

Steps without rows of the task are not counted: in homogeneous batches, other tasks are trained in between.
"""


def gradient_name(tasks: Sequence[str]) -> str:
    """Return the name under which steps with a gradient that was not finite are counted, different from all tasks."""
    name = "gradient"
    while name in tasks:
        name += "_"
    return name


def describe_skips(skipped: Mapping[str, int], tasks: Sequence[str]) -> list[str]:
    """Return a sentence for each task with skipped shares, and for skipped steps.

    Args:
        skipped: the number of skips by task, and by `gradient_name`.
        tasks: the names of all tasks.
    """
    return [
        f"the loss of {name} was infinite or NaN in {counted(count, 'step')}, and its share of these steps was skipped "
        f"(loss.on_nonfinite)"
        if name in tasks
        else f"the gradient was infinite or NaN in {counted(count, 'step')} with finite losses, and these steps were "
        f"skipped (loss.on_nonfinite)"
        for name, count in skipped.items()
        if count
    ]


class EndedStep(NamedTuple):
    """The skips of an optimizer step, equal in all processes.

    Attributes:
        skipped: the tasks whose share was skipped in any process, or the name of the gradient.
        unused: the tasks with labels in the step, all of whose shares were skipped.
        processes: the processes that skipped a share.
        is_skipped: whether the complete step is skipped, since its gradient is not finite or no share is left.
    """

    skipped: list[str]
    unused: list[str]
    processes: list[int]
    is_skipped: bool


class Skips:
    """The skips of the current optimizer step, and the counts of the training.

    The host waits for the device in every micro-batch, to see whether the losses are finite, and once more in every
    step. With a gradient scaler (fp16), only shares are skipped, since the scaler skips steps itself.

    Args:
        model: the model, not wrapped.
        accelerator: the accelerator.
        progress: the work of the training, with the counts in its checkpoints.

    Attributes:
        ended: the skips of the last step whose backward pass has ended.
    """

    def __init__(self, model: MultitaskModel, accelerator: Accelerator, progress: Progress) -> None:
        self.model = model
        self.tasks = model.tasks
        self.accelerator = accelerator
        self.progress = progress
        self.begin()

    def begin(self) -> None:
        """Begin an optimizer step."""
        self.ended = EndedStep([], [], [], False)
        self._bad: set[str] = set()
        self._used: set[str] = set()

    def look(self, sums: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Look at the losses of a micro-batch, and wait for the device.

        Args:
            sums: the summed loss of each task, shape (tasks,).
            inputs: the micro-batch.

        Returns:
            The tasks whose share should be skipped, with the number of their labelled units in the micro-batch.
        """
        present = {task for task in self.tasks if len(inputs["rows"][task])}
        good = dict(zip(self.tasks, sums.isfinite().tolist(), strict=True))
        bad = [task for task in self.tasks if not good[task]]
        self._bad |= set(bad)
        self._used |= present - set(bad)
        units = count_step([inputs], self.tasks).units if bad else {}
        return {task: float(units[task]) for task in bad}

    def zero(self) -> torch.Tensor:
        """Return a loss of zero, with gradients of zero for all parameters, for which data parallelism waits."""
        return zero_loss(*(parameter for parameter in self.model.parameters() if parameter.requires_grad))

    def end(self, optimizer: torch.optim.Optimizer) -> EndedStep:
        """Count the skips of a step after its backward pass, in all processes together.

        Args:
            optimizer: the optimizer of all parameters. If the step is skipped, all gradients become None, so that the
                optimizer changes neither weights nor its state.

        Returns:
            The skips of the step.
        """
        scaler = self.accelerator.scaler
        has_scaler = scaler is not None and scaler.is_enabled()
        device, names = self.accelerator.device, list(self.tasks)
        bad, used = (
            torch.tensor([task in found for task in names], dtype=torch.float32, device=device)
            for found in (self._bad, self._used)
        )
        wrong = torch.zeros((), device=device) if has_scaler else has_wrong_gradient(optimizer, device).float()
        parts = torch.zeros(self.accelerator.num_processes, 2 * len(names) + 1, device=device)
        parts[self.accelerator.process_index] = torch.cat([bad, used, wrong.reshape(1)])
        found = self.accelerator.reduce(parts, "sum").tolist()
        of_tasks = {task: [part[number] for part in found] for number, task in enumerate(names)}
        is_used = {task: any(part[len(names) + number] for part in found) for number, task in enumerate(names)}
        skipped = [task for task, flags in of_tasks.items() if any(flags)]
        processes = [number for number, part in enumerate(found) if any(part[: len(names)])]
        is_wrong = any(part[-1] for part in found)
        is_skipped = is_wrong or (bool(skipped) and not any(is_used.values()))
        if is_skipped:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        unused = [task for task in skipped if not is_used[task]]
        self.ended = EndedStep([*skipped, *([gradient_name(names)] if is_wrong else [])], unused, processes, is_skipped)
        self.progress.add_skips(self.ended.skipped, [task for task in names if not is_used[task]])
        return self.ended

    def in_a_row(self) -> list[str]:
        """Return the tasks, or the name of the gradient, that were skipped in too many steps in a row."""
        return [name for name, count in self.progress.skipped_in_row.items() if count >= MOST_IN_A_ROW]
