"""The joint loss of an optimizer step, over its micro-batches and all processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from mtl_nlp.balancing.pull import AdapterPull
from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts, joint_loss, share_of_rows, task_losses
from mtl_nlp.modeling.modeling_multitask import MultitaskOutput
from mtl_nlp.training.gradient_norms import GradientNorms
from mtl_nlp.training.log import TrainingLog
from mtl_nlp.training.skipping import Skips

Forward = Callable[[Mapping[str, Any]], list[MultitaskOutput]]
"""A forward pass over a micro-batch in one or several parts, each with some of the rows and some of the tasks."""


class TaskShares(NamedTuple):
    """A micro-batch's share of the loss of an optimizer step, task by task.

    Attributes:
        outputs: the model's output for each part of the micro-batch.
        shares: the share of each task for each part. The sum of all shares of all micro-batches, averaged over the
            processes, is the loss of the step without the penalty.
        penalty: the penalty of the loss weighting and the pull, in the first micro-batch of a step; else None.
    """

    outputs: list[MultitaskOutput]
    shares: list[torch.Tensor]
    penalty: torch.Tensor | None


class StepLoss:
    """The joint loss of the current optimizer step, with the weights that a loss weighting chooses once per step.

    Each micro-batch is weighted by detached copies of the weights. Once per step, `backward` sums the gradients of the
    copies over micro-batches and processes, and backpropagates the sums through the loss weighting.

    Args:
        tasks: the names of all tasks of the model.
        weighting: the loss weighting.
        scale: `rows` or `per_task`, see `joint_loss`.
        accelerator: the accelerator, which sums over processes.
        log: the log to which the step is added.
        pull: the pull of the adapters, or `None`.
        norms: the norms of the tasks' gradients, for a weighting that needs "gradient_norms", or `None`.

    Attributes:
        weighting: the loss weighting.
        pull: the pull of the adapters, or `None`.
        counts: the counts of the current step; `None` before the first step.
        loss_sums: the summed loss of each task over the current step's micro-batches of this process, shape (tasks,).
        frozen: the tasks with the weight 0, see `frozen_tasks`; `None` if the training freezes no tasks. A weighting
            sees no rows of these tasks.
        skips: the shares that are left out since they are not finite; `None` if the training stops instead.
        copies: the detached copies of the weights that weight the micro-batches of the current step.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        weighting: LossWeighting,
        scale: str,
        accelerator: Accelerator,
        log: TrainingLog,
        pull: AdapterPull | None,
        norms: GradientNorms | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.weighting = weighting
        self.scale = scale
        self.accelerator = accelerator
        self.log = log
        self.pull = pull
        self.norms = norms
        self.counts: StepCounts | None = None
        self._place = _Place()
        self.loss_sums = torch.zeros(len(self.tasks), device=accelerator.device)
        self.frozen: frozenset[str] | None = None
        self.skips: Skips | None = None
        self.copies: dict[str, torch.Tensor] = {}

    def begin(
        self,
        counts: StepCounts,
        batches: Sequence[Mapping[str, Any]],
        *,
        progress: float,
        epoch: int = 0,
        number: int = 0,
    ) -> None:
        """Begin an optimizer step.

        Args:
            counts: the counts over all micro-batches and processes.
            batches: this process's micro-batches.
            progress: the share of the training's optimizer steps before this step, 0 to 1.
            epoch: the epoch of the step, from 0.
            number: the number of optimizer steps before this step.
        """
        self.counts = self._without_frozen(counts)
        self._place = _Place(progress, epoch, number)
        self._needs = self.weighting.needs_at(number)
        self._batches = list(batches) if {"losses", "second_forward"} & self._needs else []
        self._is_ahead_due = "losses" in self._needs and len(batches) > 1
        self._random_states: list[torch.Tensor] | None = None
        if self.norms is not None:
            self.norms.begin(self.counts)
        self.loss_sums = torch.zeros(len(self.tasks), device=self.accelerator.device)
        self._step: WeightingStep | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self.copies = {}
        self._penalty_is_due = True
        if self.skips is not None:
            self.skips.begin()

    def place_at(self, *, progress: float, epoch: int, number: int) -> None:
        """Set the place in the training for losses outside of a step, before the first step.

        Args:
            progress: the share of the training's optimizer steps before the last step, 0 to 1.
            epoch: the epoch of the last step, from 0.
            number: the number of optimizer steps before the last step.
        """
        self._place = _Place(progress, epoch, number)

    def share(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, MultitaskOutput]:
        """Return this micro-batch's share of the step's loss, and the model's output.

        The shares of all micro-batches add up to the step's loss, after data parallelism has averaged the shares over
        processes.

        Raises:
            RuntimeError: if no step has begun.
        """
        (output,), (shares,), penalty = self.task_shares(
            lambda batch: [model(**self.on_device(batch), with_loss=False)], inputs
        )
        loss = shares.sum()
        return loss if penalty is None else loss + penalty, output

    def task_shares(self, forward: Forward, inputs: Mapping[str, Any]) -> TaskShares:
        """Return this micro-batch's share of the step's loss, task by task.

        Args:
            forward: the forward pass.
            inputs: the micro-batch.

        Raises:
            RuntimeError: if no step has begun.
        """
        counts = self.counts
        if counts is None:
            raise RuntimeError("A share of the step's loss needs the counts of the step. Call `begin` first.")
        # Trainer restores the random state of a resumed run after `begin`, so the passes ahead have to wait until now.
        if self._random_states is None and "second_forward" in self._needs:
            self._forward, self._random_states = forward, self._current_random_states()
        if self._is_ahead_due:
            self._is_ahead_due = False
            with self._same_random_state():
                losses = self._losses_of_batches(forward)
            self._choose_weights(counts, losses)
        outputs = forward(inputs)
        found = self._sums_of(outputs)
        left_out = {} if self.skips is None else self.skips.look(found, inputs)
        sums = torch.where(found.isfinite(), found, 0.0) if left_out else found
        self.loss_sums += sums
        self.log.add_losses(sums)
        self.log.add_left_out(left_out)
        step = self._step or self._choose_weights(counts, found)
        if self.norms is not None:
            for output in outputs:
                self.norms.add(output.loss_sums or {})
        shares = [
            task_losses(self._losses_in(output, left_out), counts, self.copies, self.scale)
            * self.accelerator.num_processes
            for output in outputs
        ]
        penalty = self._penalty(step) if self._penalty_is_due else None
        self._penalty_is_due = False
        return TaskShares(outputs, shares, penalty)

    def backward(self) -> None:
        """Backpropagate the weights' gradients, summed over micro-batches and processes, through the loss weighting."""
        learned = {task: weight for task, weight in self._weights.items() if weight.requires_grad}
        if not learned:
            return
        own = torch.stack([self.copies[task].grad for task in learned])
        # Each share was multiplied by the number of processes, so the mean over processes is the intended sum.
        total = self.accelerator.reduce(own, "mean")
        torch.autograd.backward(list(learned.values()), list(total.unbind()))

    @torch.no_grad()
    def end(self) -> None:
        """Update the state of the loss weighting after the optimizer step, and clear its gradients.

        The state stays as it is if the step was skipped, or if a loss is not finite. Where the training skips losses
        that are not finite, the state of the other tasks is updated.
        """
        ended = None if self.skips is None else self.skips.ended
        is_taken = not self.accelerator.optimizer_step_was_skipped and (ended is None or not ended.is_skipped)
        step, watches = self._step, self.weighting.watches_losses()
        if self.counts is not None and step is not None and is_taken and watches:
            losses = step.losses or self._mean_losses(self.counts, self.loss_sums)
            norms = {} if self.norms is None else self.norms.take()
            after = self._losses_after(self.counts) if "second_forward" in self._needs else {}
            kept = losses.keys() - (set() if ended is None else set(ended.skipped))
            kept &= after.keys() if "second_forward" in self._needs else kept
            losses, norms, after = ({task: of[task] for task in of if task in kept} for of in (losses, norms, after))
            step = dataclasses.replace(step, losses=losses, gradient_norms=norms, losses_after=after)
            self._update_weighting(step)
        self.weighting.zero_grad()

    def factor(self, task: str, counts: StepCounts) -> float:
        """Return w_t · (n_t / N), by which the mean loss of a task is multiplied. The host waits for the device.

        Args:
            task: the task.
            counts: the counts of the current step.
        """
        weight = self.copies.get(task)
        return (1.0 if weight is None else weight.item()) * share_of_rows(task, counts, self.scale)

    def outside_step(self, loss_sums: Mapping[str, torch.Tensor], counts: StepCounts) -> torch.Tensor:
        """Return the joint loss of rows outside of an optimizer step, such as evaluated rows.

        The loss has the current weights, as constants, and no penalty. The random state does not change.

        Args:
            loss_sums: the summed loss of each task.
            counts: the counts of the rows.
        """
        seen = self._without_frozen(counts)
        losses = {task: loss_sums[task].detach() / units for task, units in seen.units.items() if units}
        with torch.no_grad(), self._same_random_state():
            weights = self._weights_for(self._weighting_step(seen, losses))
        constants = {task: weight.detach() for task, weight in weights.items()}
        return joint_loss(loss_sums, counts, constants, self.scale)

    def _update_weighting(self, step: WeightingStep) -> None:
        """Call `after_step`, and undo its changes if a measurement is not finite, without waiting for the device."""

        def state() -> dict[str, torch.Tensor]:
            return dict(itertools.chain(self.weighting.named_parameters(), self.weighting.named_buffers()))

        before = {name: value.clone() for name, value in state().items()}
        self.weighting.after_step(step)
        if before and step.losses:
            measured = [*step.losses.values(), *step.gradient_norms.values(), *step.losses_after.values()]
            is_finite = torch.stack(measured).isfinite().all()
            for name, value in state().items():
                value.copy_(torch.where(is_finite, value, before[name]))

    def _choose_weights(self, counts: StepCounts, sums: torch.Tensor) -> WeightingStep:
        losses = self._mean_losses(counts, sums) if "losses" in self._needs else {}
        step = self._step = self._weighting_step(counts, losses)
        self._weights = self._weights_for(step)
        self.copies = {
            task: weight.detach().requires_grad_() if weight.requires_grad else weight
            for task, weight in self._weights.items()
        }
        if self.frozen is not None:
            ones = dict.fromkeys(self.tasks, torch.ones((), device=self.accelerator.device))
            self.log.add_weights(ones | self._weights)
        elif not self.weighting.is_constant:
            self.log.add_weights(self._weights)
        return step

    def _weighting_step(self, counts: StepCounts, losses: Mapping[str, torch.Tensor]) -> WeightingStep:
        shares = {
            task: float(units > 0) * share_of_rows(task, counts, self.scale) for task, units in counts.units.items()
        }
        place = self._place
        return WeightingStep(counts, losses, place.progress, shares, place.epoch, place.number)

    def _weights_for(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        with torch.autocast(self.accelerator.device.type, enabled=False):
            weights = self.weighting.weights(step)
        if unknown := weights.keys() - set(self.tasks):
            raise ValueError(
                f"The loss weighting should name tasks of the model ({', '.join(self.tasks)}). Found {unknown}."
            )
        return weights | dict.fromkeys(self.frozen or (), torch.zeros((), device=self.accelerator.device))

    def _without_frozen(self, counts: StepCounts) -> StepCounts:
        """Return counts without the rows and labels of frozen tasks; their rows count for N."""
        nothing = dict.fromkeys(self.frozen or (), 0)
        return StepCounts(counts.rows, counts.task_rows | nothing, counts.units | nothing)

    def _mean_losses(self, counts: StepCounts, sums: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the mean loss over all processes of each task with labels, given the summed losses of this process.

        Where the training skips losses that are not finite, a task with such a loss in any process is left out.
        """
        if self.skips is None:
            total = self.accelerator.reduce(sums.float(), "sum")
            return {task: total[n] / counts.units[task] for n, task in enumerate(self.tasks) if counts.units[task]}
        is_good = sums.isfinite()
        parts = torch.stack([torch.where(is_good, sums, 0.0).float(), is_good.logical_not().float()])
        total, bad = self.accelerator.reduce(parts, "sum").unbind()
        return {
            task: total[n] / counts.units[task]
            for n, (task, is_bad) in enumerate(zip(self.tasks, bad.tolist(), strict=True))
            if counts.units[task] and not is_bad
        }

    def _losses_in(self, output: MultitaskOutput, left_out: Mapping[str, float]) -> dict[str, torch.Tensor]:
        """Return the summed losses of an output, with zero for the tasks whose loss is left out.

        The loss leaves the graph: a factor of zero would turn an infinite gradient into NaN.
        """
        losses = dict(output.loss_sums or {})
        if self.skips is not None:
            losses |= {task: self.skips.zero() for task in left_out if task in losses}
        return losses

    def _sums_of(self, outputs: Sequence[MultitaskOutput]) -> torch.Tensor:
        """Return the summed loss of each task over the parts of a micro-batch, shape (tasks,), without a graph."""
        parts = [output.loss_sums or {} for output in outputs]
        zero = self.loss_sums.new_zeros(())
        return torch.stack([sum((part[task].detach() for part in parts if task in part), zero) for task in self.tasks])

    @torch.no_grad()
    def _losses_of_batches(self, forward: Forward) -> torch.Tensor:
        """Return the summed losses of this process over the step's micro-batches, shape (tasks,)."""
        total = torch.zeros_like(self.loss_sums)
        for batch in self._batches:
            total += self._sums_of(forward(batch))
        return total

    def _losses_after(self, counts: StepCounts) -> dict[str, torch.Tensor]:
        """Return the mean losses after the optimizer step, with the dropout of the step."""
        with self._same_random_state():
            for generator, state in zip(self._generators(), self._random_states or [], strict=True):
                generator.set_rng_state(state)
            return self._mean_losses(counts, self._losses_of_batches(self._forward))

    def _penalty(self, step: WeightingStep) -> torch.Tensor:
        with torch.autocast(self.accelerator.device.type, enabled=False):
            penalty = self.weighting.penalty(step)
        if self.pull is not None:
            pull = self.pull.penalty()
            self.log.add_pull(pull)
            penalty = penalty + pull
        return penalty

    def on_device(self, batch: Any) -> Any:
        """Return a batch with all of its tensors on the device of this process."""
        device = self.accelerator.device
        return batch if device.type == "cpu" else send_to_device(batch, device, non_blocking=True)

    def _generators(self) -> list[Any]:
        """Return the modules of torch whose random states a forward pass of this process moves."""
        device = self.accelerator.device
        return [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]

    def _current_random_states(self) -> list[torch.Tensor]:
        return [generator.get_rng_state() for generator in self._generators()]

    @contextlib.contextmanager
    def _same_random_state(self) -> Iterator[None]:
        """Restore the random state of this process at the end of the context."""
        before = self._current_random_states()
        try:
            yield
        finally:
            for generator, state in zip(self._generators(), before, strict=True):
                generator.set_rng_state(state)


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of an optimizer step in the training, see `WeightingStep`."""

    progress: float = 0.0
    epoch: int = 0
    number: int = 0
