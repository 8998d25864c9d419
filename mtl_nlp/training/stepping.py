"""A Trainer whose optimizer steps minimise the joint loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers.trainer_utils import TrainOutput

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.pull import AdapterPull
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.errors import RunError
from mtl_nlp.modeling.loss_multitask import StepCounts, count_labels, count_step
from mtl_nlp.modeling.modeling_multitask import MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.compiling import compile_encoder, count_compilations
from mtl_nlp.training.counting import CountedBatch, Counter, Work
from mtl_nlp.training.distilling import mix_targets
from mtl_nlp.training.divergence import Divergence
from mtl_nlp.training.gradient_norms import GradientNorms, last_shared_layer
from mtl_nlp.training.host_sums import HostSums
from mtl_nlp.training.log import TrainingLog
from mtl_nlp.training.measuring import ConflictWatch
from mtl_nlp.training.prefetching import Prefetcher
from mtl_nlp.training.progress import Progress
from mtl_nlp.training.skipping import MOST_IN_A_ROW, Skips
from mtl_nlp.training.speed import Speed, Utilization
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

_UNSHARDED = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}
"""The ways of training in which each process has all gradients."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_MANY_SKIPS = 5
"""The number of skips from which on the share of the skipped steps counts."""


class SteppingTrainer(StoppableTrainer):
    """A Trainer that counts the rows of an optimizer step over all processes, and computes the joint loss of the step.

    Attributes:
        trained_tasks: the tasks that the mixture has labels for; without a mixture, all tasks.
        loss_weighting: the method that chooses the weights of the tasks.
        gradient_method: the method that combines the gradients of the tasks; None for the plain sum.
        progress: the work that the training has done.
        speed: the clock of the training.
        task_gradients: the gradients of each task for a gradient method; None without a gradient method.
        conflict: the measurement of the conflict between the tasks' gradients; None without `conflict_every`.
    """

    trained_tasks: dict[str, Task]
    loss_weighting: LossWeighting
    gradient_method: GradientMethod | None
    progress: Progress
    speed: Speed
    task_gradients: TaskGradients | None
    conflict: ConflictWatch | None
    _log: TrainingLog
    _streams: StreamPosition
    _sums: HostSums

    def build_step(self) -> None:
        """Build the joint loss, and the measurements that the arguments, the weighting and the gradient method need.

        Raises:
            ValueError: if a part does not support the model or the distribution of its parameters.
        """
        args, model = self.args, self.model
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._log = TrainingLog(list(self.tasks), args.device)
        self._sums = HostSums(args.device, args.world_size)
        self.speed = Speed()
        self._compiled_before = count_compilations()
        self._prefetcher: Prefetcher | None = None
        self._norm: torch.Tensor | None = None
        self._weights = list(model.parameters())  # once, since a walk over all modules takes long
        # Trainer would count them in every micro-batch, over all modules of the model.
        self._parameters = model.num_parameters(exclude_embeddings=True)
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
        compile_encoder(model, args, self.accelerator)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train the model, see `Trainer.train`."""
        self.progress.number_format = self.args.number_format
        self.speed = Speed(self._utilization())
        self._weights = list(self.model.parameters())
        self.is_in_loop = True
        try:
            return super().train(*args, **kwargs)
        finally:
            self.is_in_loop = False
            self._close_prefetcher()

    def _utilization(self) -> Utilization | None:
        """Return the computation of the used share of the devices, which is known for CUDA alone."""
        if self.args.device.type != "cuda":
            return None
        return Utilization(self.model, self.args.device, _DTYPES[self.args.number_format], self.args.world_size)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.speed.paused():
            return super()._evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.speed.paused():
            super()._save_checkpoint(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log entries, with the speed of the training."""
        if "loss" in logs:
            logs |= self.speed.take()
            logs |= {"compilations": count_compilations() - self._compiled_before} if self.args.torch_compile else {}
        elif "train_runtime" in logs:
            self.speed.take()
            logs |= {} if self.speed.mean is None else {"train_tokens_per_second": self.speed.mean}
        super().log(logs, start_time)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, StepCounts]:
        """Return this process's micro-batches of an optimizer step, and the counts of the step over all processes."""
        self.speed.begin_step()
        if self._prefetches:
            epoch_iterator = self._prefetched(epoch_iterator)
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.train_dataset.is_streamed:
            self._streams.state = batches[-1][1]
            batches = [batch for batch, _ in batches]
        number = self.state.global_step
        progress = number / max(self.state.max_steps, 1)
        work = self._work_of(batches)
        counts = work.counts
        self.stop.share(self._sums)
        self.progress.add(work)
        self.speed.add(work)
        own_units = None if self.args.world_size == 1 else count_labels(batches, self.tasks)[1]
        self._log.add_step(counts, sub_words=work.sub_words, positions=work.positions, own_units=own_units)
        for batch in batches:
            mix_targets(batch, self.tasks, progress)
        if self._combines_gradients:
            batches = [with_parts(batch, self.tasks) for batch in batches]
        if self.conflict is not None:
            self.conflict.begin(number)
        epoch = int(self.state.epoch or 0)
        self.step.begin(counts, batches, progress=progress, epoch=epoch, number=number)
        return batches, counts

    @property
    def _prefetches(self) -> bool:
        """Whether a thread makes the batches of the training while the device computes.

        Workers of the data loader prefetch themselves. An own collator may draw from the random state of the main
        thread, and the readers of a stream may too. On a CPU, the thread would take a core from the computation to save
        less than a millisecond per batch.
        """
        is_plain = type(self.data_collator) is MultitaskDataCollator and not self.train_dataset.is_streamed
        return self.args.device.type != "cpu" and is_plain and self.args.dataloader_num_workers == 0

    def _prefetched(self, batches: Iterator) -> Prefetcher:
        """Return the prefetcher of an epoch's batches."""
        if self._prefetcher is None or self._prefetcher.batches is not batches:
            self._close_prefetcher()
            device = None if self.args.device.type == "cpu" else self.args.device
            self._prefetcher = Prefetcher(batches, 2 * self.args.gradient_accumulation_steps, device)
        return self._prefetcher

    def _close_prefetcher(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def divergence(self, found: Divergence, step: int, *, skipped: int = 0) -> RunError:
        """Return the error that ends a run, see `WatchingTrainer.divergence`."""
        self._close_prefetcher()  # the rows of the step are read from the same schedule
        return super().divergence(found, step, skipped=skipped)

    def _work_of(self, batches: Sequence[Mapping[str, Any]]) -> Work:
        """Return the counts of micro-batches over all processes, which wait for each other only if a count is unknown.

        The counts of streams, of own collators and of own data loaders are known to one process.
        """
        counted = [batch for batch in batches if isinstance(batch, CountedBatch)]
        parts = [batch.work for batch in counted if batch.work is not None]
        is_complete = all(batch.is_complete for batch in counted)
        if len(parts) < len(batches):
            counter, is_complete = Counter(self.model), False
            parts = [counter.count(batch) for batch in batches]
        numbers = [sum(each) for each in zip(*(part.numbers() for part in parts), strict=True)]
        return parts[0].with_numbers(numbers if is_complete else self._sums.begin(numbers)())

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
                self._observe()
            else:
                self._skip(self.step.skips)
        return loss

    def _observe(self) -> None:
        """Record whether the losses and the gradients of a step are finite.

        The norm of the model's gradients is kept for clipping. Where parameters are sharded, or a gradient scaler has
        multiplied the gradients, accelerate clips with a norm of its own.
        """
        self._norm = None
        if self.args.max_grad_norm > 0 and self.accelerator.distributed_type in _UNSHARDED and not self.has_scaler:
            gradients = [parameter.grad for parameter in self._weights if parameter.grad is not None]
            if not any(isinstance(gradient, DTensor) for gradient in gradients):
                self._norm = torch.nn.utils.get_total_norm(gradients)
        others = (parameter.grad for parameter in self.loss_weighting.parameters())
        norm_of = None if self._norm is None else [self._norm, *(each for each in others if each is not None)]
        self.watch.observe(self.step.loss_sums, self.optimizer, norm_of)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """Clip the gradients of the model, with the norm that `_observe` has computed if it has."""
        norm, self._norm = self._norm, None
        if norm is None:
            return super()._clip_grad_norm(model)
        torch.nn.utils.clip_grads_with_norm_(self._weights, self.args.max_grad_norm, norm)
        return norm

    @property
    def has_scaler(self) -> bool:
        """Whether gradients are multiplied by a scale (fp16)."""
        return self.accelerator.scaler is not None and self.accelerator.scaler.is_enabled()

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return a batch on the device. The host does not wait for copies from pinned memory."""
        return super()._prepare_inputs(inputs) if self.is_deepspeed_enabled else self.step.on_device(inputs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return Trainer's estimate for a batch, 6 · sub-words with padding · parameters without embeddings."""
        return 6 * inputs["input_ids"].numel() * self._parameters

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
            output = model(**inputs, with_loss=False)
            loss = self.step.outside_step(output.loss_sums, count_step([inputs], self.tasks))
        return (loss, output) if return_outputs else loss
