"""The gradients of each task in an optimizer step, and their combination by a gradient method."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from transformers.training_args import OptimizerNames

from mtl_nlp.balancing.gradients import GradientMethod, own_parameters, seed_of, shared_parameters
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.measuring import ConflictWatch
from mtl_nlp.training.step import StepLoss

PARTS = "parts"
"""The key of a micro-batch under which its parts are, see `with_parts`."""


class TaskGradients:
    """The gradients of each task, summed over the micro-batches and processes of an optimizer step.

    The forward pass goes through the model itself: the hooks of DistributedDataParallel would add up the gradients of
    all tasks. The gradients of the shared parameters are one vector per task in float32; the heads and adapters of
    tasks get their plain gradients.

    Args:
        model: the model, not wrapped.
        step: the joint loss of the current step.
        method: the gradient method.
        seed: the seed of the training.

    Attributes:
        method: the gradient method.
    """

    def __init__(self, model: MultitaskModel, step: StepLoss, method: GradientMethod, *, seed: int) -> None:
        self.model = model
        self.step = step
        self.method = method
        self.seed = seed
        self._gradients = torch.zeros(0, 0)
        self._shared: list[nn.Parameter] = []
        self._own_of: dict[str, list[nn.Parameter]] = {}
        self._begin(())

    def _begin(self, present: Iterable[str]) -> None:
        """Begin a step with rows of some tasks."""
        self._row_of = {task: number for number, task in enumerate(present)}
        self._filled: set[str] = set()
        self._reached: set[nn.Parameter] = set()
        self._own: dict[nn.Parameter, torch.Tensor] = {}
        self._has_begun = False

    def add(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Add the gradients of a micro-batch with parts, and return its share of the step's loss, without a graph."""
        if not self._has_begun:
            self._allocate()
        found = self.step.task_shares(self._forward, batch)
        with torch.autocast(self.step.accelerator.device.type, enabled=False):
            for output, shares in zip(found.outputs, found.shares, strict=True):
                self._add_part(output, shares)
            if found.penalty is not None:
                self._add_penalty(found.penalty)
        terms = [share.detach().sum() for share in found.shares]
        return sum(terms, torch.zeros_like(self.step.loss_sums[0]) if found.penalty is None else found.penalty.detach())

    def finish(self, number: int, conflict: ConflictWatch | None = None) -> None:
        """Combine the gradients of the step, and write the gradients of all parameters.

        Args:
            number: the number of optimizer steps before the step.
            conflict: the measurement of conflict, which may be due.
        """
        gradients = self._gradients[: len(self._row_of)]
        for task, row in self._row_of.items():
            if task not in self._filled:
                gradients[row].zero_()
        self._sum_over_processes(gradients)
        counts = self.step.counts
        if conflict is not None and conflict.is_due and counts is not None:
            factors = {task: self.step.factor(task, counts) for task in self._row_of}
            conflict.measure_rows(gradients, factors, counts)
        gramian = gradients @ gradients.T
        if self._is_distributed:
            dist.broadcast(gramian, src=0)  # rounding may differ between devices, and the update may not
        rows = [self.method.tasks.index(task) for task in self._row_of]
        scaler = self.step.accelerator.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        update = self.method.combine(gradients, gramian.cpu() / scale**2, rows, seed=seed_of(self.seed, number))
        pieces = update.split([parameter.numel() for parameter in self._shared])
        for parameter, gradient in zip(self._shared, pieces, strict=True):
            if self._is_distributed or parameter in self._reached:
                parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
        self._write_own()
        for copy in self.step.copies.values():
            if copy.requires_grad and copy.grad is None:
                copy.grad = torch.zeros_like(copy)
        self._begin(())

    def _allocate(self) -> None:
        counts = self.step.counts
        self._begin(task for task, rows in (counts.task_rows if counts is not None else {}).items() if rows)
        self._has_begun = True
        self._shared = shared_parameters(self.model)
        self._own_of = {task: own_parameters(self.model, task) for task in self.model.tasks}
        size = sum(parameter.numel() for parameter in self._shared)
        if self._gradients.shape != (len(self.model.tasks), size):
            self._gradients = torch.empty(len(self.model.tasks), size, device=self.step.accelerator.device)

    def _forward(self, batch: Mapping[str, Any]) -> list[MultitaskOutput]:
        return [self.model(**self.step.on_device(part), with_loss=False) for part in batch[PARTS]]

    def _add_part(self, output: MultitaskOutput, shares: torch.Tensor) -> None:
        """Add the gradients of the tasks of a part, with one backward pass per task."""
        tasks = list(output.loss_sums or {})
        for task, share in zip(tasks, shares.unbind(), strict=True):
            if task not in self._row_of:  # a frozen task
                continue
            own, copy = self._own_of[task], self.step.copies.get(task)
            learned = [copy] if copy is not None and copy.requires_grad else []
            found = torch.autograd.grad(
                self._scaled(share), [*self._shared, *own, *learned], retain_graph=task != tasks[-1], allow_unused=True
            )
            self._add_shared(task, found[: len(self._shared)])
            self._add_own(own, found[len(self._shared) :])
            _accumulate(learned, found[len(self._shared) + len(own) :])

    def _add_shared(self, task: str, found: Sequence[torch.Tensor | None]) -> None:
        row = self._gradients[self._row_of[task]]
        self._reached |= {parameter for parameter, each in zip(self._shared, found, strict=True) if each is not None}
        pieces = [
            (torch.zeros_like(parameter) if each is None else each).flatten().float()
            for parameter, each in zip(self._shared, found, strict=True)
        ]
        if task in self._filled:
            row += torch.cat(pieces)
        else:
            torch.cat(pieces, out=row)
            self._filled.add(task)

    def _add_own(self, parameters: Sequence[nn.Parameter], found: Sequence[torch.Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, found, strict=False):
            if gradient is not None:
                before = self._own.get(parameter)
                self._own[parameter] = gradient.clone() if before is None else before + gradient

    def _add_penalty(self, penalty: torch.Tensor) -> None:
        """Add the gradients of a penalty on the loss weighting and on the adapters of tasks."""
        if penalty.requires_grad:
            learned = [parameter for parameter in self.step.weighting.parameters() if parameter.requires_grad]
            own = self._every_own()
            found = torch.autograd.grad(self._scaled(penalty), [*own, *learned], allow_unused=True)
            self._add_own(own, found)
            _accumulate(learned, found[len(own) :])

    def _write_own(self) -> None:
        """Write the gradients of heads and adapters of tasks, averaged over the processes like shares of the loss."""
        if not self._is_distributed:
            for parameter, gradient in self._own.items():
                parameter.grad = gradient
            return
        every = self._every_own()
        flat = torch.cat([self._own.get(parameter, torch.zeros_like(parameter)).flatten() for parameter in every])
        self._sum_over_processes(flat)
        for parameter, gradient in zip(every, flat.split([p.numel() for p in every]), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def _every_own(self) -> list[nn.Parameter]:
        return list(itertools.chain.from_iterable(self._own_of.values()))

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        scaler = self.step.accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    @property
    def _is_distributed(self) -> bool:
        return self.step.accelerator.num_processes > 1

    def _sum_over_processes(self, tensor: torch.Tensor) -> None:
        """Average a tensor over the processes in place, since each share of the loss was multiplied by their number."""
        if self._is_distributed:
            dist.all_reduce(tensor)
            tensor /= self.step.accelerator.num_processes


def _accumulate(tensors: Sequence[torch.Tensor], found: Sequence[torch.Tensor | None]) -> None:
    """Add gradients to those of the weights of a loss weighting, and of its parameters.

    A first gradient is copied, since autograd may return a view in which one number stands for many.
    """
    for tensor, gradient in zip(tensors, found, strict=True):
        if gradient is not None:
            tensor.grad = gradient.clone() if tensor.grad is None else tensor.grad + gradient


def with_parts(batch: Mapping[str, Any], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return a micro-batch with its parts: the rows with labels for the same set of tasks are one part.

    A part is a batch for the model, without padding that only other rows need. Rows without a label are in no part.

    Args:
        batch: the batch from the collator, on the CPU.
        tasks: the tasks of the model by name.
    """
    labelled = np.zeros((len(batch["input_ids"]), len(tasks)), dtype=bool)
    for number, task in enumerate(tasks):
        labelled[batch["rows"][task].numpy(), number] = True
    sets, set_of = np.unique(labelled, axis=0, return_inverse=True)
    parts = [
        _part(
            batch,
            torch.from_numpy(np.flatnonzero(set_of.reshape(-1) == number)),
            list(itertools.compress(tasks, each)),
            tasks,
        )
        for number, each in enumerate(sets)
        if each.any()
    ]
    return {**batch, PARTS: parts}


def _part(batch: Mapping[str, Any], rows: torch.Tensor, names: list[str], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return some rows of a batch that have labels for the same tasks."""
    length = int(batch["attention_mask"][rows].sum(dim=1).max())  # the collator pads on the right
    read = ("input_ids", "attention_mask", "token_type_ids")
    part: dict[str, Any] = {key: batch[key][rows, :length] for key in read if key in batch}
    part["rows"] = {name: torch.arange(len(rows)) for name in names}
    part["labels"] = {}
    if "weights" in batch:
        part["weights"] = batch["weights"][rows]
    for name in names:
        labels = batch["labels"][name][torch.searchsorted(batch["rows"][name], rows)]
        part["labels"][name] = labels[:, :length] if tasks[name].kind.labels_words else labels
    return {**part, "tasks": names}


def check_task_gradients(model: MultitaskModel, *, is_sharded: bool) -> None:
    """Check that a model has gradients of several tasks to compare or to combine.

    Args:
        model: the model.
        is_sharded: whether parameters are sharded (FSDP, DeepSpeed).

    Raises:
        ValueError: if there is one task, parameters are sharded, or the tasks share no trained parameters.
    """
    if len(model.tasks) < 2:
        raise ValueError("Gradients of several tasks are needed, and the model has one task. Leave it out.")
    if is_sharded:
        raise ValueError("FSDP and DeepSpeed shard the gradients, which are needed in one piece. Train without them.")
    if not shared_parameters(model):
        raise ValueError("The tasks share no trained parameters: the encoder is frozen. Leave it out.")


def check_gradient_method(model: MultitaskModel, args: MultitaskTrainingArguments, *, is_sharded: bool) -> None:
    """Check that a gradient method can combine the gradients of a model's tasks.

    Args:
        model: the model.
        args: the training arguments.
        is_sharded: whether parameters are sharded (FSDP, DeepSpeed).

    Raises:
        ValueError: if there are no gradients of several tasks to combine before the optimizer's step.
    """
    check_task_gradients(model, is_sharded=is_sharded)
    optimizer = OptimizerNames(args.optim).value
    if "layerwise" in optimizer or "lomo" in optimizer:
        raise ValueError(
            f"`optim: {optimizer}` updates the weights in the backward pass, before a gradient method can combine the "
            f"gradients. Choose a different optimizer, or leave out the gradient method."
        )
    _check_checkpointing(args)


def check_kept_graph(args: MultitaskTrainingArguments) -> None:
    """Check that the gradients of tasks can be measured in the graph of the training's own backward pass.

    Args:
        args: the training arguments.

    Raises:
        ValueError: if the graph allows one backward pass only, or no gradients of single tasks.
    """
    _check_checkpointing(args)
    if args.torch_compile:
        raise ValueError(
            "`torch_compile: true` frees the graph in the first backward pass, and each task needs a backward pass of "
            "its own. Leave out `torch_compile`."
        )


def _check_checkpointing(args: MultitaskTrainingArguments) -> None:
    if args.activation_checkpointing and (args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            "`activation_checkpointing_kwargs: {use_reentrant: true}` does not support the gradients of several tasks. "
            "Leave out `use_reentrant`."
        )
