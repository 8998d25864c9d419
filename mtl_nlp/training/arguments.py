"""Training arguments: those of transformers and a few for several tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from transformers import TrainingArguments

from mtl_nlp.balancing.pull import check_pull
from mtl_nlp.modeling.adapters_multitask import (
    supports_mixed_batches,
)
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


@dataclass
class MultitaskTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the settings of the joint loss.

    `metric_for_best_model` is `mtl_score` unless given.

    Args:
        loss_weights: w_t of each task in the joint loss, 1 where a task is not named.
        loss_scale: `rows` scales a task's loss by the share of rows that carry its label, so that the mixture sets
            how much a dataset counts; `per_task` does not.
        max_tokens_per_batch: sub-words of a training batch on one device at most, padding counted, in place of
            `per_device_train_batch_size`. A row labelled for several tasks with adapters counts once, though it is read
            once for each of them.
        head_learning_rate: learning rate of the heads' new layers, where it should differ from `learning_rate`, that of
            all pretrained ones (the encoder, and the pooler in the heads of BERT and its kin).
        adapter_learning_rate: learning rate of the adapters, where it should differ from `learning_rate`.
        adapter_pull: λ of the pull of the tasks' adapters towards their mean in the loss, see `adapter_deviation`.
        early_stopping_patience: stop after this many evaluations without a better `metric_for_best_model`.

    Raises:
        ValueError: if a value is out of its range.
    """

    # Given as JSON on a command line (HfArgumentParser), hence also a `str`; a dict or None once it is read.
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "loss_weights"]

    # The batch is made by the collator and its labels by task: nothing may be dropped, and evaluate() must find them.
    remove_unused_columns: bool = field(default=False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    # The model touches all of its parameters at every step, whatever tasks a process has.
    ddp_find_unused_parameters: bool | None = field(default=False)
    # A resumed run goes on counting towards early stopping.
    restore_callback_states_from_checkpoint: bool = field(default=True)
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "What picks the best model; mtl_score if not given and it is asked for."}
    )
    loss_weights: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Weight of each task in the joint loss, 1 where a task is not named."}
    )
    loss_scale: str = field(
        default="rows",
        metadata={"help": "Whether a task's loss is scaled by its share of rows.", "choices": ["rows", "per_task"]},
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={"help": "B · L of a training batch at most, in place of per_device_train_batch_size."},
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the heads' new layers; the encoder's if not given."}
    )
    adapter_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the adapters; the encoder's if not given."}
    )
    adapter_pull: float = field(
        default=0.0, metadata={"help": "Weight in the loss of how far the tasks' adapters are from their mean."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without improvement after which training stops."}
    )

    def __post_init__(self) -> None:
        # Without an accelerator the processor is the only choice, but Trainer refuses bf16 there unless it is chosen:
        # one recipe should run on both kinds of machine.
        if not torch.accelerator.is_available():
            self.use_cpu = True
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "mtl_score"
        super().__post_init__()
        if self.train_sampling_strategy != "random" or self.dataloader_drop_last:
            raise ValueError(
                "The mixture orders and groups its batches itself and drops none: leave out `train_sampling_strategy` "
                "and `dataloader_drop_last`."
            )
        if self.loss_scale not in {"rows", "per_task"}:
            raise ValueError(f"`loss_scale` should be 'rows' or 'per_task'. Found {self.loss_scale!r}.")
        if isinstance(self.loss_weights, str):
            raise ValueError(f"`loss_weights` should map tasks to weights. Found {self.loss_weights!r}.")
        for task, weight in (self.loss_weights or {}).items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"`loss_weights` should be finite and at least 0. Found {weight} for {task!r}.")
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(f"`max_tokens_per_batch` should be at least 1. Found {self.max_tokens_per_batch}.")
        for name in ("head_learning_rate", "adapter_learning_rate", "adapter_pull"):
            value = vars(self)[name]
            if value is not None and not 0.0 <= value < float("inf"):
                raise ValueError(f"`{name}` should be finite and at least 0. Found {value}.")
        if self.early_stopping_patience is not None:
            if self.early_stopping_patience < 1:
                raise ValueError(
                    f"`early_stopping_patience` should be at least 1. Found {self.early_stopping_patience}."
                )
            if not self.load_best_model_at_end:
                raise ValueError("`early_stopping_patience` needs `load_best_model_at_end: true`.")

    @property
    def n_gpu(self) -> int:
        """At most 1: a process uses one device. DataParallel, Trainer's choice for more, cuts batches wrongly."""
        return min(super().n_gpu, 1)


def check_adapter_arguments(model: MultitaskModel, args: MultitaskTrainingArguments, *, is_sharded: bool) -> None:
    """See that what is asked for of adapters goes with a model's.

    Args:
        model: the model.
        args: the training arguments.
        is_sharded: whether parameters are (FSDP).

    Raises:
        ValueError: if there are none, they cannot be pulled, or they take a pass each and parameters are sharded:
            processes with other tasks would make other numbers of passes, and wait for each other.
    """
    if args.adapter_learning_rate is not None and not model.adapter_names:
        raise ValueError("`adapter_learning_rate` needs a model with adapters, and this model has no adapter.")
    if args.adapter_pull:
        check_pull(model)
    if (
        is_sharded
        and not supports_mixed_batches(model.config.text_config, model.config.adapters or ())
        and model.adapter_names
    ):
        raise ValueError(
            "FSDP: DoRA adapters, and those of a DeBERTa encoder, take an encoder pass each, and processes would wait "
            "for each other's. Train without FSDP."
        )
