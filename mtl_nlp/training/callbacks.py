"""Callbacks of the trainer: work before training, before each epoch, and around each optimizer step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, IntervalStrategy, TrainerCallback
from transformers.trainer_callback import CallbackHandler, ExportableState, TrainerControl, TrainerState

from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.mixture.streaming import MixtureStream
from mtl_nlp.modeling.adapters_multitask import adapter_parameters, peft_adapter_name
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.divergence import DivergenceWatch
from mtl_nlp.training.freezing import FreezingCallback
from mtl_nlp.training.states import StreamPosition
from mtl_nlp.training.step import StepLoss
from mtl_nlp.training.step_rows import BegunEpoch


class CurrentArguments(TrainerCallback):
    """Callback that applies the current training arguments to a resumed run.

    Trainer itself would use the intervals and the patience that the checkpoint was trained with, and would compare the
    values of a new `metric_for_best_model` with the best value of the metric before.

    Args:
        handler: the callback handler of the trainer. Trainer replaces the handler's callbacks when it resumes.
    """

    def __init__(self, handler: CallbackHandler) -> None:
        self.handler = handler

    def on_train_begin(
        self, args: MultitaskTrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Set the steps between logs, evaluations and checkpoints, the patience, and the metric of the best model."""
        state.compute_steps(args, state.max_steps)
        if args.metric_for_best_model is not None:
            key = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
            best = (entry for entry in state.log_history if entry.get("step") == state.best_global_step)
            state.best_metric = next((entry[key] for entry in best if entry.get(key) is not None), state.best_metric)
        saved = cast("dict[str, Any]", state.stateful_callbacks)
        for callback in self.handler.callbacks:
            if isinstance(callback, ExportableState):  # Trainer fails to save a callback that the checkpoint lacks
                saved.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback) and args.early_stopping_patience is not None:
                callback.early_stopping_patience = args.early_stopping_patience


class EpochStart(TrainerCallback):
    """Callback that sets the epoch of the sampler and the start of a stream.

    Trainer does not set the epoch when it resumes in the middle of an epoch.

    Args:
        position: the position in the streams of the mixture.

    Attributes:
        begun: the epochs that have begun since the start or the last resume of training.
    """

    def __init__(self, position: StreamPosition) -> None:
        self.position = position
        self.begun: list[BegunEpoch] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the epochs of an earlier training."""
        self.begun = []

    def on_epoch_begin(
        self,
        args: MultitaskTrainingArguments,
        state: TrainerState,
        control: Any,
        train_dataloader: DataLoader,
        **kwargs: Any,
    ) -> None:
        """Set the epoch of the sampler, and the start of a stream."""
        stream = train_dataloader.dataset if isinstance(train_dataloader.dataset, MixtureStream) else None
        sampler = train_dataloader.batch_sampler if stream is None else stream.sampler
        if not isinstance(sampler, MixtureBatchSampler):  # a subclass of the trainer can have a different loader
            return
        # Trainer computes the epoch in this way. `state.epoch` counts in batches of the recipe before a change.
        accumulated = args.gradient_accumulation_steps
        epoch, steps = divmod(state.global_step, math.ceil(len(sampler) / accumulated))
        batches = 0 if args.ignore_data_skip else steps * accumulated
        self.begun.append(BegunEpoch(sampler, epoch, state.global_step, batches))
        sampler.set_epoch(epoch)
        if stream is not None:
            stream.start_at(epoch, batches, self.position.state)


class EvaluationBeforeCheckpoint(TrainerCallback):
    """Callback that evaluates at the last step of an epoch or training before a checkpoint of this step is written.

    Trainer would write the checkpoint first, and a run that resumes from it would lack the evaluation.
    """

    def __init__(self) -> None:
        self.evaluated_step: int | None = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate now if a checkpoint is due at the end of an epoch or training, as is an evaluation."""
        is_due = args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= (state.epoch or 0.0)
        is_end = float(state.epoch or 0.5).is_integer() or state.global_step >= state.max_steps
        if is_due and is_end and control.should_save:
            control.should_evaluate, self.evaluated_step = True, state.global_step

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Prevent a second evaluation of the same step."""
        if self.evaluated_step == state.global_step:
            control.should_evaluate = False


class StepHooks(TrainerCallback):
    """Callback that prepares the gradients for each optimizer step, and ends the joint loss's step.

    Args:
        step: the joint loss of the current step.
        watch: the watch over losses and gradients that are not finite.
    """

    def __init__(self, step: StepLoss, watch: DivergenceWatch) -> None:
        self.step = step
        self.watch = watch

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Forget the steps of an earlier training, and set the place of the last step before a checkpoint."""
        self.watch.reset()
        number, epoch = max(state.global_step - 1, 0), max(math.ceil(state.epoch or 0) - 1, 0)
        self.step.place_at(progress=number / max(state.max_steps, 1), epoch=epoch, number=number)

    def on_pre_optimizer_step(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: MultitaskModel,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Keep gradients that are not finite, and gradients of idle parts, away from the optimizer.

        Heads and adapters that no row of the step used have gradients of zero, but the momentum and weight decay of
        AdamW move a parameter even if its gradient is zero. Adapters under a pull are idle only if their task is
        frozen.
        """
        self.watch.protect(optimizer)
        counts = self.step.counts
        skips = self.step.skips
        if skips is not None and skips.ended.is_skipped:  # clipping has changed nothing, since all gradients are None
            return
        unused = [] if skips is None else skips.ended.unused
        idle = [task for task in model.tasks if counts is not None and (counts.task_rows[task] == 0 or task in unused)]
        heads = model.heads_by_task
        still = idle if self.step.pull is None else list(self.step.frozen or ())
        adapters = adapter_parameters(model.encoder, map(peft_adapter_name, still)) if still else []
        for parameter in itertools.chain(adapters, *(heads[task].parameters() for task in idle)):
            parameter.grad = None

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: torch.optim.Optimizer, **kwargs: Any
    ) -> None:
        """End the step of the loss weighting."""
        self.watch.release(optimizer)
        self.step.end()


def is_over(
    state: TrainerState, args: MultitaskTrainingArguments, max_steps: int, callbacks: Iterable[TrainerCallback]
) -> bool:
    """Return whether the run of a checkpoint had ended: after all of its steps, by early stopping or by freezing.

    Args:
        state: the checkpoint's state.
        args: the current training arguments.
        max_steps: the current number of optimizer steps.
        callbacks: the trainer's callbacks.
    """
    callbacks = list(callbacks)
    if state.global_step >= max_steps:
        return True
    if any(isinstance(callback, FreezingCallback) and callback.is_over(state) for callback in callbacks):
        return True
    stops_early = any(isinstance(callback, EarlyStoppingCallback) for callback in callbacks)
    saved = state.stateful_callbacks.get(EarlyStoppingCallback.__name__, [])
    if not stops_early or not args.restore_callback_states_from_checkpoint:
        return False
    return any(
        one["attributes"]["early_stopping_patience_counter"]
        >= (args.early_stopping_patience or one["args"]["early_stopping_patience"])
        for one in (saved if isinstance(saved, list) else [saved])
    )
