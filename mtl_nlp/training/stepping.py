"""A Trainer whose optimizer steps minimise the joint loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.pull import AdapterPull
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.errors import RunError
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step
from mtl_nlp.modeling.modeling_multitask import MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.distilling import mix_targets
from mtl_nlp.training.divergence import Divergence
from mtl_nlp.training.gradient_norms import GradientNorms, last_shared_layer
from mtl_nlp.training.log import TrainingLog
from mtl_nlp.training.measuring import ConflictWatch
from mtl_nlp.training.progress import Progress
from mtl_nlp.training.skipping import MOST_IN_A_ROW, Skips
from mtl_nlp.training.states import StreamPosition
from mtl_nlp.training.step import StepLoss
from mtl_nlp.training.stopping import StoppableTrainer
from mtl_nlp.training.task_gradients import (
    PARTS,
    TaskGradients,
    check_gradient_method,
    check_kept_graph,
    check_task_gradients,
    with_parts,
)

_MANY_SKIPS = 5
"""The number of skips from which on the share of the skipped steps counts."""


class SteppingTrainer(StoppableTrainer):
    """A Trainer that counts the rows of an optimizer step over all processes, and computes the joint loss of the step.

    Attributes:
        trained_tasks: the tasks that the mixture has labels for; without a mixture, all tasks.
        loss_weighting: the method that chooses the weights of the tasks.
        gradient_method: the method that combines the gradients of the tasks; None for the plain sum.
        progress: the work that the training has done.
        task_gradients: the gradients of each task for a gradient method; None without a gradient method.
        conflict: the measurement of the conflict between the tasks' gradients; None without `conflict_every`.
    """

    trained_tasks: dict[str, Task]
    loss_weighting: LossWeighting
    gradient_method: GradientMethod | None
    progress: Progress
    task_gradients: TaskGradients | None
    conflict: ConflictWatch | None
    _log: TrainingLog
    _streams: StreamPosition

    def build_step(self) -> None:
        """Build the joint loss, and the measurements that the arguments, the weighting and the gradient method need.

        Raises:
            ValueError: if a part does not support the model or the distribution of its parameters.
        """
        args, model = self.args, self.model
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._log = TrainingLog(list(self.tasks), args.device)
        pull = AdapterPull(model, args.adapter_pull) if args.adapter_pull else None
        measures_norms = "gradient_norms" in self.loss_weighting.needs
        if measures_norms:
            check_kept_graph(args)
        norms = GradientNorms(last_shared_layer(model), self.accelerator) if measures_norms else None
        self.step = StepLoss(
            list(self.tasks), self.loss_weighting, args.loss_scale, self.accelerator, self._log, pull, norms
        )
        self.task_gradients = self.conflict = None
        if self.gradient_method is not None:
            check_gradient_method(model, args, is_sharded=is_sharded)
            self.task_gradients = TaskGradients(model, self.step, self.gradient_method, seed=args.seed)
        if args.conflict_every is not None and self.train_dataset is not None:
            check_task_gradients(model, is_sharded=is_sharded)
            check_kept_graph(args)
            self.conflict = ConflictWatch(model, self.accelerator, args.conflict_every)
        if args.on_nonfinite == "skip":
            if is_sharded:
                raise ValueError("`on_nonfinite: skip` does not support FSDP and DeepSpeed. Leave it out.")
            self.step.skips = Skips(model, self.accelerator, self.progress)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, StepCounts]:
        """Return this process's micro-batches of an optimizer step, and the counts of the step over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.train_dataset.is_streamed:
            self._streams.state = batches[-1][1]
            batches = [batch for batch, _ in batches]
        number = self.state.global_step
        progress = number / max(self.state.max_steps, 1)
        for batch in batches:
            mix_targets(batch, self.tasks, progress)
        own = count_step(batches, self.tasks)
        sub_words = sum(int(batch["attention_mask"].sum()) for batch in batches)
        positions = sum(batch["attention_mask"].numel() for batch in batches)
        work = self.progress.count(batches, self.model)
        numbers = [sub_words, positions, own.rows, *own.task_rows.values(), *own.units.values(), *work]
        numbers.append(self.stop.is_requested)
        total = self._summed_over_processes(numbers, device)
        self.stop.is_agreed = total.pop() > 0
        sub_words, positions, rows, *task_rows = map(int, total[: 3 + len(self.tasks)])
        units, done = total[3 + len(self.tasks) : -len(work)], total[-len(work) :]
        counts = StepCounts(
            rows, dict(zip(self.tasks, task_rows, strict=True)), dict(zip(self.tasks, units, strict=True))
        )
        self.progress.add(rows, done)
        self._log.add_step(counts, sub_words=sub_words, positions=positions)
        if self._combines_gradients:
            batches = [with_parts(batch, self.tasks) for batch in batches]
        if self.conflict is not None:
            self.conflict.begin(number)
        epoch = int(self.state.epoch or 0)
        self.step.begin(counts, batches, progress=progress, epoch=epoch, number=number)
        return batches, counts

    def _summed_over_processes(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """Return the sums of numbers over all processes. One process does not wait for its device."""
        if self.args.world_size == 1:
            return list(numbers)
        # One type in all processes, since units are numbers or sums of weights. MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return self.accelerator.reduce(torch.tensor(numbers, dtype=dtype, device=device), "sum").tolist()

    @property
    def _combines_gradients(self) -> bool:
        """Whether a gradient method combines the gradients of the current step."""
        method = None if self.task_gradients is None else self.task_gradients.method
        return method is not None and (self.state.global_step + 1) % method.every == 0

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: StepCounts | None = None,
    ) -> torch.Tensor:
        """Run a micro-batch forward and backward; after a step's last micro-batch, run the loss weighting backward.

        The gradients of the loss weighting are computed before clipping, so that a gradient scaler unscales all
        gradients together.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            if self.task_gradients is not None and self._combines_gradients:
                self.task_gradients.finish(self.state.global_step, self.conflict)
            self.step.backward()
            if self.step.skips is None:  # before clipping, which hides large gradients
                self.watch.observe(self.step.loss_sums, self.optimizer)
            else:
                self._skip(self.step.skips)
        return loss

    def _skip(self, skips: Skips) -> None:
        """End the skips of a step, in all processes together.

        Raises:
            RunError: if too many steps in a row had a skip of the same task.
        """
        ended = skips.end(self.optimizer)
        if ended.skipped:  # the penalty alone would move the weight of a task whose loss was left out
            self.loss_weighting.zero_grad()
        self._log.add_skips(ended.skipped)
        if names := skips.in_a_row():
            tasks = [name for name in names if name in self.tasks]
            found = Divergence(0, tasks, False, ended.processes if tasks else list(range(self.args.world_size)))
            raise self.divergence(found, self.state.global_step + 1, skipped=MOST_IN_A_ROW)

    def check_skips(self) -> None:
        """Check that the loss of each task was finite in most steps of a training that skips other losses.

        A short training can end before `MOST_IN_A_ROW` steps were skipped.

        Raises:
            RunError: if a task, or the gradient, was skipped in at least five steps and in more than half of all steps.
        """
        steps = self.state.global_step
        for name, count in self.progress.skipped.items():
            if count >= _MANY_SKIPS and 2 * count > steps:
                what = f"the loss of task {name!r}" if name in self.tasks else "the gradient"
                raise RunError(
                    f"Training has diverged: {what} was infinite or NaN in {count} of {steps} steps "
                    f"(loss.on_nonfinite). The model is not saved. Train again with a lower `learning_rate`."
                )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: StepCounts | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, MultitaskOutput]:
        """Return this micro-batch's share of the step's joint loss, see `joint_loss`.

        Args:
            model: the model, wrapped or not.
            inputs: a batch.
            return_outputs: whether to return the model's output too.
            num_items_in_batch: the counts of the complete step; None outside of a step, for the loss of the batch.
        """
        if num_items_in_batch is not None and self.task_gradients is not None and PARTS in inputs:
            # Trainer calls `backward` of the result, which has no graph.
            return self.task_gradients.add(inputs).requires_grad_()
        if num_items_in_batch is not None:
            loss, output = self.step.share(model, inputs)
            if self.conflict is not None and output.loss_sums is not None:
                self.conflict.measure(output.loss_sums, inputs)
        else:
            output = model(**inputs)
            loss = self.step.outside_step(output.loss_sums, count_step([inputs], self.tasks))
        return (loss, output) if return_outputs else loss
