"""The measurement of the conflict between the tasks' gradients in training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator

from mtl_nlp.balancing.conflict import Blocks, Conflict, block_gramians, blocks_of
from mtl_nlp.errors import CheckpointError
from mtl_nlp.hub.outside import Loading
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run_folder import CONFLICT_NAME


class ConflictWatch:
    """A measurement of the tasks' gradients at every n-th optimizer step, which does not change the training.

    The gradients are those of the mean losses CE_t / u_t over the first micro-batch of all processes, with the graph of
    the training's own forward pass; in a step with a gradient method, those of the complete step. The host waits for
    the device in a measured step.

    Args:
        model: the model, not wrapped.
        accelerator: the accelerator.
        every: the number of optimizer steps from one measurement to the next.

    Attributes:
        conflict: the measurements.
    """

    def __init__(self, model: MultitaskModel, accelerator: Accelerator, every: int) -> None:
        self.model = model
        self.accelerator = accelerator
        self.conflict = Conflict(list(model.tasks), blocks_of(model).names, every)
        self._step: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether the current optimizer step is still to be measured."""
        return self._step is not None

    def begin(self, number: int) -> None:
        """Begin an optimizer step.

        Args:
            number: the number of optimizer steps before the step.
        """
        self._step = number + 1 if (number + 1) % self.conflict.every == 0 else None

    def measure(self, loss_sums: Mapping[str, torch.Tensor], batch: Mapping[str, Any]) -> None:
        """Measure the gradients of a micro-batch if it is the first of a step to measure, before its backward pass.

        Args:
            loss_sums: the summed loss of each task, with the graph, which is kept.
            batch: the micro-batch.
        """
        if self._step is None:
            return
        step, self._step = self._step, None
        own = count_step([batch], self.model.tasks)
        numbers = torch.tensor([*own.task_rows.values(), *own.units.values()], device=self.accelerator.device)
        rows, units = self.accelerator.reduce(numbers.float(), "sum").reshape(2, -1).tolist()
        blocks = blocks_of(self.model)
        size = sum(parameter.numel() for parameter in blocks.parameters)
        gradients = torch.zeros(len(units), size, device=self.accelerator.device)
        with torch.autocast(self.accelerator.device.type, enabled=False):
            for row, (task, unit) in enumerate(zip(self.model.tasks, units, strict=True)):
                if own.task_rows[task]:
                    self._write_gradient(loss_sums[task] / unit, blocks, gradients[row])
        if self.accelerator.num_processes > 1:
            dist.all_reduce(gradients)
        gramians = block_gramians(gradients, blocks.own_slices, len(blocks.names))
        self.conflict.add(step, dict(zip(self.model.tasks, map(int, rows), strict=True)), gramians / self._scale**2)

    def measure_rows(self, gradients: torch.Tensor, factors: Mapping[str, float], counts: StepCounts) -> None:
        """Measure the gradients of a gradient method, in a step to measure.

        Args:
            gradients: the gradients of the shared parameters, one for each task in `factors`.
            factors: w_t · (n_t / N) for each task with rows, by which the gradient of CE_t / u_t was multiplied.
            counts: the counts of the step.
        """
        if self._step is None:
            return
        step, self._step = self._step, None
        blocks = blocks_of(self.model)
        tasks = list(self.model.tasks)
        found = block_gramians(gradients, blocks.slices, len(blocks.names))
        inverse = torch.tensor([1.0 / factor if factor else 0.0 for factor in factors.values()], device=found.device)
        places = torch.tensor([tasks.index(task) for task in factors], device=found.device)
        gramians = found.new_zeros(len(blocks.names), len(tasks), len(tasks))
        gramians[:, places[:, None], places] = found * inverse[:, None] * inverse / self._scale**2
        self.conflict.add(step, counts.task_rows, gramians)

    def save(self, checkpoint: Path) -> None:
        """Write the measurements into a checkpoint."""
        (checkpoint / CONFLICT_NAME).write_text(json_text(self.conflict.content()), encoding="utf-8")

    def load(self, checkpoint: Path | None) -> None:
        """Continue the measurements of a checkpoint; start without any for None, and if the checkpoint has none.

        Raises:
            CheckpointError: if the file is damaged.
        """
        self.conflict.reset()
        file = None if checkpoint is None else checkpoint / CONFLICT_NAME
        if file is not None and file.is_file():
            with Loading(CheckpointError, str(file)):
                self.conflict.restore(json.loads(file.read_text(encoding="utf-8")))

    def _write_gradient(self, loss: torch.Tensor, blocks: Blocks, row: torch.Tensor) -> None:
        """Write the gradient of a loss on the blocks, multiplied by the scale of a gradient scaler."""
        found = torch.autograd.grad(
            loss * self._scale, blocks.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        torch.cat([each.flatten().float() for each in found], out=row)

    @property
    def _scale(self) -> float:
        scaler = self.accelerator.scaler
        return 1.0 if scaler is None else scaler.get_scale()
