"""Training arguments: those of transformers and a few for several tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from transformers import TrainingArguments

from mtl_nlp.modeling.adapters_multitask import supports_mixed_batches
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.checks import check_loss_weights, check_not_negative


@dataclass
class MultitaskTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the settings of the joint loss.

    `metric_for_best_model` is `mtl_score` unless given.

    Args:
        loss_weights: w_t of each task in the joint loss, 1 where a task is not named. Other methods to choose the
            weights are given to the trainer as `loss_weighting`.
        loss_scale: `rows` scales a task's loss by the share of rows that carry its label, so that the mixture sets
            the importance of a dataset; `per_task` does not.
        max_tokens_per_batch: the largest number of sub-words in a training batch on one device, padding included,
            instead of `per_device_train_batch_size`. A row with labels for several tasks with adapters counts once,
            although the encoder reads it once for each of them.
        head_learning_rate: the learning rate of the heads' new layers, if it differs from `learning_rate`, which is
            that of all pretrained layers (the encoder, and the pooler in the heads of families such as BERT).
        adapter_learning_rate: the learning rate of the adapters, if it differs from `learning_rate`.
        adapter_pull: λ of the pull of the tasks' adapters towards their mean in the loss, see `adapter_deviation`.
        early_stopping_patience: the number of evaluations without a better `metric_for_best_model` after which
            training stops.

    Raises:
        ValueError: if a value is out of its range.
    """

    # A command line (HfArgumentParser) gives JSON, hence the type `str`; after reading it is a dict or None.
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "loss_weights"]

    # The collator makes the batch, with labels by task: no column may be dropped, and evaluate() must find the labels.
    remove_unused_columns: bool = field(default=False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    # The model touches all of its parameters at every step, whatever tasks a process has.
    ddp_find_unused_parameters: bool | None = field(default=False)
    # A resumed run continues to count towards early stopping.
    restore_callback_states_from_checkpoint: bool = field(default=True)
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "The metric that selects the best model; mtl_score by default."}
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
        metadata={"help": "The largest B · L of a training batch, instead of per_device_train_batch_size."},
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the heads' new layers; the encoder's if not given."}
    )
    adapter_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the adapters; the encoder's if not given."}
    )
    adapter_pull: float = field(
        default=0.0, metadata={"help": "Weight in the loss of the distance of the tasks' adapters from their mean."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without improvement after which training stops."}
    )

    def __post_init__(self) -> None:
        # Without an accelerator only the processor is left, but Trainer refuses bf16 there unless `use_cpu` is set. One
        # recipe should run on machines of both kinds.
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
        check_loss_weights(self.loss_weights or {})
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(f"`max_tokens_per_batch` should be at least 1. Found {self.max_tokens_per_batch}.")
        for name in ("head_learning_rate", "adapter_learning_rate", "adapter_pull"):
            value = vars(self)[name]
            if value is not None:
                check_not_negative(name, value)
        if self.early_stopping_patience is not None:
            if self.early_stopping_patience < 1:
                raise ValueError(
                    f"`early_stopping_patience` should be at least 1. Found {self.early_stopping_patience}."
                )
            if not self.load_best_model_at_end:
                raise ValueError("`early_stopping_patience` needs `load_best_model_at_end: true`.")

    @property
    def n_gpu(self) -> int:
        """Devices of this process, at most 1: DataParallel, which Trainer uses for more, splits batches wrongly."""
        return min(super().n_gpu, 1)


def check_adapter_arguments(model: MultitaskModel, args: MultitaskTrainingArguments, *, is_sharded: bool) -> None:
    """Check that the arguments about adapters fit a model's adapters.

    Args:
        model: the model.
        args: the training arguments.
        is_sharded: whether parameters are sharded (FSDP).

    Raises:
        ValueError: if the model has no adapters, or if each needs an encoder pass and parameters are sharded:
            processes with different tasks would make different numbers of passes, and wait for each other.
    """
    if args.adapter_learning_rate is not None and not model.adapter_names:
        raise ValueError("`adapter_learning_rate` needs a model with adapters, and this model has no adapter.")
    if (
        is_sharded
        and not supports_mixed_batches(model.config.text_config, model.config.adapters or ())
        and model.adapter_names
    ):
        raise ValueError(
            "FSDP: DoRA adapters, and those of a DeBERTa encoder, take an encoder pass each, and processes would wait "
            "for each other's. Train without FSDP."
        )
