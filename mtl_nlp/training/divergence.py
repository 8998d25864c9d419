"""The watch over losses and gradients that are not finite, which keeps such gradients away from the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from mtl_nlp.errors import CheckpointError, RunError
from mtl_nlp.modeling.weights_multitask import not_finite
from mtl_nlp.training.completeness import last_checkpoint

LOWEST_SCALE = 1e-4
"""The scale of a gradient scaler below which fp16 is not the reason why gradients overflow (the limit of fairseq)."""

_WITH_FLAG = (torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)
"""The optimizers of torch that, if fused, skip a step when the tensor `found_inf` is 1."""


class Divergence(NamedTuple):
    """The first step of a run with a loss or gradient that was not finite, or with such a weight.

    Attributes:
        steps_ago: the number of optimizer steps since.
        tasks: the tasks whose loss was not finite.
        of_weights: whether losses and gradients were finite, but a weight was not.
        processes: the processes whose rows gave the losses; without `tasks`, all processes with the gradient.
    """

    steps_ago: int
    tasks: list[str]
    of_weights: bool
    processes: list[int]


class DivergenceWatch:
    """A record, on the device, of the first step with a loss or gradient that was not finite.

    From that step on, the watch keeps the weights as they are until the run ends, see `protect`. The host waits for
    the device only when it reads the record: when losses are logged, and before evaluations and checkpoints.

    With a gradient scaler (fp16), gradients that overflow are normal. The scaler skips such steps and lowers its scale,
    and only a loss that is not finite, or a scale below `LOWEST_SCALE`, counts. DeepSpeed updates the weights in the
    backward pass, so that the run only ends.

    Args:
        tasks: the names of all tasks.
        accelerator: the accelerator.
    """

    def __init__(self, tasks: Sequence[str], accelerator: Accelerator) -> None:
        self.tasks = list(tasks)
        self.accelerator = accelerator
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        device = self.accelerator.device
        self._is_over = torch.zeros((), dtype=torch.bool, device=device)
        # One flag per task, and one for the gradient: of the first step with a flag.
        self._flags = torch.zeros(len(self.tasks) + 1, dtype=torch.bool, device=device)
        self._steps_ago = torch.zeros((), device=device)
        self._frozen = torch.zeros((), device=device)  # 1 from the first gradient on that is not finite

    def observe(
        self,
        loss_sums: torch.Tensor,
        optimizer: torch.optim.Optimizer,
        norm_of: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Record a step after its backward pass, without waiting for the device.

        The norm of all gradients shows whether they are finite, and also overflows if their squares do. Sharded
        gradients are observed by the processes that update the shards.

        Args:
            loss_sums: the summed loss of each task over this process's micro-batches, shape (tasks,).
            optimizer: the optimizer of all parameters, of the model and of the loss weighting.
            norm_of: tensors with the same norm as all gradients together, such as the norm of some of them, which is
                computed for clipping anyway; all gradients by default.
        """
        self._steps_ago = self._steps_ago + self._is_over
        if self._has_scaler:
            of_gradient = torch.zeros_like(self._is_over)
        elif norm_of is None:
            of_gradient = has_wrong_gradient(optimizer, self._frozen.device)
        else:
            of_gradient = _is_wrong(norm_of, self._frozen.device)
        self._record(loss_sums.isfinite().logical_not_(), of_gradient)

    def protect(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the next step of an optimizer leave the weights as they are, if a gradient was not finite.

        A fused optimizer of torch then skips the step, and changes neither weights nor its own state. For any other
        optimizer, all gradients become zero; momentum still moves the weights, which stay finite.

        Args:
            optimizer: the optimizer, prepared by accelerate or not.
        """
        if self._has_scaler:
            return
        own, gradients = _of_torch(optimizer), _gradients(optimizer)
        has_dtensors = any(isinstance(gradient, DTensor) for gradient in gradients)
        if has_dtensors or self.accelerator.distributed_type == DistributedType.FSDP:
            # Clipping has multiplied the gradients of all processes by a norm to which all shards contribute.
            of_gradient = has_wrong_gradient(optimizer, self._frozen.device)
            self._frozen = torch.maximum(self._frozen, of_gradient.float())
        if isinstance(own, _WITH_FLAG) and all(group["fused"] for group in own.param_groups) and not has_dtensors:
            vars(own)["found_inf"] = self._frozen
            return
        for gradient in map(_local, gradients):
            gradient.masked_fill_(self._frozen.to(gradient.device, torch.bool), 0.0)

    def release(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo `protect` after the step."""
        if not self._has_scaler:
            vars(_of_torch(optimizer)).pop("found_inf", None)

    def record(self, weights: Iterable[tuple[str, torch.Tensor]] = ()) -> torch.Tensor:
        """Return the record of this process, to be summed over the processes and read by `read`.

        The host may wait for the device here, for the scale of a gradient scaler and for the weights.

        Args:
            weights: names and weights to check too.

        Returns:
            A vector in float32 with a part for each process. Only the part of this process is not zero.
        """
        if self._has_scaler and self.accelerator.scaler.get_scale() < LOWEST_SCALE:
            self._record(torch.zeros_like(self._flags[:-1]), torch.ones_like(self._is_over))
        has_wrong_weights = bool(not_finite((name, _local(weight)) for name, weight in weights))
        parts = torch.zeros(self.accelerator.num_processes, len(self.tasks) + 4, device=self.accelerator.device)
        own = parts[self.accelerator.process_index]
        own[0], own[1], own[2:-1], own[-1] = self._is_over, self._steps_ago, self._flags, float(has_wrong_weights)
        return parts.flatten()

    def read(self, record: torch.Tensor) -> Divergence | None:
        """Return the first divergence in any process, or None if everything was finite.

        Args:
            record: the sum of the records of all processes.
        """
        parts = dict(enumerate(record.reshape(self.accelerator.num_processes, -1).tolist()))
        over = {process: part for process, part in parts.items() if part[0]}
        if not over:
            with_weights = [process for process, part in parts.items() if part[-1]]
            return Divergence(0, [], True, with_weights) if with_weights else None
        steps_ago = max(part[1] for part in over.values())
        first = {process: part[2:-2] for process, part in over.items() if part[1] == steps_ago}
        with_losses = [process for process, flags in first.items() if any(flags)]
        tasks = [task for n, task in enumerate(self.tasks) if any(flags[n] for flags in first.values())]
        return Divergence(int(steps_ago), tasks, False, with_losses or list(first))

    @property
    def _has_scaler(self) -> bool:
        return self.accelerator.scaler is not None and self.accelerator.scaler.is_enabled()

    def _record(self, of_tasks: torch.Tensor, of_gradient: torch.Tensor) -> None:
        flags = torch.cat([of_tasks, of_gradient.reshape(1)])
        self._flags = torch.where(self._is_over, self._flags, flags)
        self._is_over = self._is_over | flags.any()
        self._frozen = torch.maximum(self._frozen, of_gradient.float())


def has_wrong_gradient(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.Tensor:
    """Return whether the norm of all gradients is infinite or NaN, a scalar on a device, without waiting for it."""
    gradients = [_local(gradient) for gradient in _gradients(optimizer)]
    if not gradients:  # under DeepSpeed
        return torch.zeros((), dtype=torch.bool, device=device)
    return _is_wrong(gradients, device)


def _is_wrong(gradients: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    return torch.nn.utils.get_total_norm(gradients).to(device).isfinite().logical_not_()


def _of_torch(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, or the part of a sharded tensor that this process has."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def diverged(found: Divergence, step: int, rows: str, output_dir: Path, skipped: int = 0) -> RunError:
    """Return the error that ends a run.

    Args:
        found: the divergence.
        step: its step.
        rows: the rows of the step in words; empty if they are not known.
        output_dir: the folder of the run.
        skipped: the number of steps in a row, up to this one, that were skipped for the same reason.
    """
    if found.tasks:
        many = "losses of tasks" if len(found.tasks) > 1 else "loss of task"
        cause = f"the {many} {', '.join(map(repr, found.tasks))} became infinite or NaN"
    elif found.of_weights:
        cause = "a weight became infinite or NaN, although all losses and gradients were finite"
    else:
        cause = "the gradient became infinite or NaN, although the loss of every task was finite"
    where = f" The step had {rows}." if rows else ""
    where += f" {skipped} steps in a row were skipped for this reason." if skipped else ""
    saved = "" if skipped else " Nothing was saved since."
    try:
        resume = f"resume from {last_checkpoint(output_dir).path} (--resume), or "
    except CheckpointError:
        resume = ""
    remedy = f"{'check these rows, and ' if rows else ''}{resume}train again with a lower `learning_rate`."
    return RunError(f"Training has diverged: at step {step}, {cause}.{where}{saved} {remedy[0].upper()}{remedy[1:]}")
