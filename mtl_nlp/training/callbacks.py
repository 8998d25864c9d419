"""Callbacks of the trainer: what must happen around epochs and optimizer steps."""

from __future__ import annotations

import itertools
import math
from typing import Any

from transformers import TrainerCallback

from mtl_nlp.modeling.adapters_multitask import adapter_parameters, peft_adapter_name


class StepHooks(TrainerCallback):
    """What must happen around steps."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let what is asked for now be in effect, where Trainer keeps what a checkpoint's state says."""
        state.compute_steps(args, state.max_steps)
        for stopping in self.trainer._early_stopping:
            stopping.early_stopping_patience = args.early_stopping_patience or stopping.early_stopping_patience

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the sampler its epoch, which Trainer's own way does not when it resumes in the middle of one."""
        trainer, accumulated = self.trainer, args.gradient_accumulation_steps
        if trainer._sampler is not None:  # counted as Trainer does, since state.epoch is of the batches before a change
            epoch, steps = divmod(state.global_step, math.ceil(len(trainer._sampler) / accumulated))
            trainer._sampler.set_epoch(epoch)
            if trainer._stream is not None:
                skipped = 0 if args.ignore_data_skip else steps * accumulated
                trainer._stream.start_at(epoch, skipped, trainer._stream_state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give heads and adapters that no row of the step used, nor the pull, no gradient at all.

        Theirs is zero, and zero is not none: AdamW's momentum and weight decay would still move them.
        """
        counts, model = self.trainer._step_counts, self.trainer.model
        idle = [task for task in model.tasks if counts is not None and counts.task_rows[task] == 0]
        heads = model.heads_by_task
        adapters = (
            [] if args.adapter_pull or not idle else adapter_parameters(model.encoder, map(peft_adapter_name, idle))
        )
        for parameter in itertools.chain(adapters, *(heads[task].parameters() for task in idle)):
            parameter.grad = None
