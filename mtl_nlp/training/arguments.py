"""Training arguments: the arguments of transformers, and a few for multitask training."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from mtl_nlp.messages import conceal
from mtl_nlp.modeling.adapters_multitask import supports_mixed_batches
from mtl_nlp.modeling.layers_multitask import layers_of
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.checks import check_loss_weights
from mtl_nlp.training.display import shows_bars
from mtl_nlp.training.precision import FORMATS, uses_bf16
from mtl_nlp.training.ranges import check_ranges
from mtl_nlp.training.refusals import check_accelerator, check_refused


@dataclass
class MultitaskTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the settings of the joint loss.

    `metric_for_best_model` is `mtl_score` unless given. `disable_tqdm` is true by default where a bar is not readable,
    such as in a pipe or the log of a CI job.

    Args:
        loss_weights: w_t of each task in the joint loss. For a task that is not named, w_t is 0.6 if the task labels
            texts and a different trained task labels words, 3 if the task finds spans and a different trained task
            labels every word, and 1 otherwise. A pair of numbers moves linearly from its first to its second value over
            the training. For any other method of weighting, pass `loss_weighting` to
            the trainer.
        loss_scale: `rows` scales the loss of a task by the share of rows that carry a label of the task, so that the
            mixture sets the importance of each dataset. `per_task` does not scale the loss.
        max_tokens_per_batch: the largest number of sub-words in a training batch on one device, padding included,
            instead of `per_device_train_batch_size`. A row counts once, even if the encoder reads the row once per
            adapter of its tasks.
        head_learning_rate: the learning rate of the new layers of the heads; by default 20 times `learning_rate` in a
            model of several tasks, and `learning_rate` in a model of one task and for the heads of a trained model.
            Pretrained layers (the encoder, and the pooler in the heads of families such as BERT) always have
            `learning_rate`.
        layer_lr_decay: the factor from the learning rate of each layer of the encoder to that of the layer below; the
            last layer has `learning_rate`, and the embeddings have the lowest rate. No decay by default. See
            `decay_by_layer`.
        adapter_learning_rate: the learning rate of the adapters; `learning_rate` by default.
        adapter_pull: λ of the penalty that pulls the adapters of tasks towards their mean, see `adapter_deviation`.
        early_stopping_patience: the number of evaluations without a better `metric_for_best_model` after which
            training stops.
        freeze_patience: the number of evaluations in a row without a new best score of a task after which the weight of
            the task is 0, see `frozen_tasks`. The training stops once this is so for every task. No task is frozen by
            default.
        on_nonfinite: the reaction to a loss or gradient that is infinite or NaN. `stop` ends the run; the host waits
            for the device only at each log. `skip` leaves out the task's share of the step, or the complete step if
            only the gradient is not finite, and ends the run after ten such steps in a row; the host then waits for the
            device in every micro-batch.
        precision: the number format of the training, instead of `bf16`: `fp32`, `bf16` (mixed, as `bf16: true`) or
            `auto`, which is bf16 where the machine multiplies bfloat16 fast, see `uses_bf16`. Weights and their updates
            stay in float32. With `precision`, evaluations after the training are in float32, like the pipeline. None
            by default, which is the format of `bf16` and `fp16`; recipes that give neither of these have `auto`.
        conflict_every: the number of optimizer steps from one measurement of the conflict between the tasks' gradients
            to the next; no measurement by default.

    Raises:
        ValueError: if a value is out of its range.
    """

    # HfArgumentParser reads JSON from a command line, hence the type `str`. Once parsed, the value is a dict or None.
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "loss_weights"]

    # The collator reads all columns, and the batch has the labels of all tasks under `labels`.
    remove_unused_columns: bool = field(default=False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    # Every parameter gets a gradient at every step, even if a process has no rows of some tasks.
    ddp_find_unused_parameters: bool | None = field(default=False)
    # Trainer's filter waits for the device at every micro-batch, and logs a loss of NaN as 0.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Not supported: a run ends if a loss or gradient is not finite."}
    )
    # A bar in a pipe or in the log of a CI job is a line of control characters.
    disable_tqdm: bool | None = field(
        default=None,
        metadata={"help": "Whether to print lines instead of bars; true by default except in terminals and notebooks."},
    )
    # The count of evaluations without improvement continues when a run resumes.
    restore_callback_states_from_checkpoint: bool = field(default=True)
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "Metric that selects the best model; mtl_score by default."}
    )
    loss_weights: dict[str, float | list[float]] | str | None = field(
        default=None, metadata={"help": "Weight of each task in the joint loss."}
    )
    loss_scale: str = field(
        default="rows",
        metadata={
            "help": "Whether the loss of a task is scaled by its share of rows.",
            "choices": ["rows", "per_task"],
        },
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={"help": "Largest number of sub-words in a batch, instead of per_device_train_batch_size."},
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the heads' new layers; 20 times learning_rate with several tasks."},
    )
    layer_lr_decay: float | None = field(
        default=None, metadata={"help": "Factor from the learning rate of a layer to that of the layer below."}
    )
    adapter_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the adapters; learning_rate by default."}
    )
    adapter_pull: float = field(
        default=0.0,
        metadata={"help": "Weight of the penalty on the distance of adapters from their mean."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Number of evaluations without improvement after which training stops."}
    )

    freeze_patience: int | None = field(
        default=None, metadata={"help": "Number of evaluations without a new best after which a task is frozen."}
    )
    on_nonfinite: str = field(
        default="stop",
        metadata={
            "help": "Whether a loss or gradient that is not finite ends the run or is skipped.",
            "choices": ["stop", "skip"],
        },
    )
    precision: str | None = field(
        default=None,
        metadata={
            "help": "Number format of the training; auto is bf16 where the machine computes it fast.",
            "choices": list(FORMATS),
        },
    )
    conflict_every: int | None = field(
        default=None, metadata={"help": "Number of steps between two measurements of the conflict of the gradients."}
    )

    def __post_init__(self) -> None:
        # Trainer refuses bf16 on a CPU unless `use_cpu` is set, and the same recipe should run with and without an
        # accelerator.
        if not torch.accelerator.is_available():
            self.use_cpu = True
        # Trainer fails on a backend without other processes, and the same recipe should run with and without them.
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            self.ddp_backend = None
        if self.disable_tqdm is None and not shows_bars():
            self.disable_tqdm = True
        keeps_best = self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST
        if keeps_best and self.metric_for_best_model is None:
            self.metric_for_best_model = "mtl_score"
        check_ranges(vars(self))
        check_refused(vars(self), dataclasses.fields(self))
        self._check_own_arguments()
        is_chosen = self.precision is not None and (self.precision != "auto" or self.deepspeed is None)
        if is_chosen and uses_bf16(str(self.precision), use_cpu=self.use_cpu):
            self.bf16 = True
        super().__post_init__()
        if self.precision == "fp32":  # also under `accelerate launch --mixed_precision`
            self.mixed_precision = "no"
        check_accelerator(self.accelerator_config)
        self._check_selection()

    def _check_own_arguments(self) -> None:
        if self.loss_scale not in {"rows", "per_task"}:
            raise ValueError(f"`loss_scale` should be 'rows' or 'per_task'. Found {self.loss_scale!r}.")
        if self.on_nonfinite not in {"stop", "skip"}:
            raise ValueError(f"`on_nonfinite` should be 'stop' or 'skip'. Found {self.on_nonfinite!r}.")
        evaluates, saves = IntervalStrategy(self.eval_strategy).value, SaveStrategy(self.save_strategy).value
        if self.load_best_model_at_end and evaluates != "no" and saves not in {evaluates, "best"}:
            raise ValueError(
                f"`save_strategy` should be that of `eval_strategy` ({evaluates!r}), since `load_best_model_at_end` "
                f"keeps a checkpoint of each evaluation. Found {saves!r}."
            )

        if self.precision is not None and self.precision not in FORMATS:
            raise ValueError(f"`precision` should be one of {', '.join(FORMATS)}. Found {self.precision!r:.80}.")
        # A copy of the arguments has `bf16` too, as `precision` has set it.
        if self.precision is not None and (self.fp16 or (self.bf16 and self.precision == "fp32")):
            other = "fp16" if self.fp16 else "bf16"
            raise ValueError(
                f"`precision` {self.precision} and `{other}` exclude each other. Leave out one of the two."
            )

    @property
    def number_format(self) -> str:
        """The number format of the training: `fp32`, `bf16` or `fp16`."""
        return "fp32" if self.mixed_precision == "no" else self.mixed_precision

    def continue_with(self, number_format: str) -> bool:
        """Compute in the number format of a checkpoint, if `precision` is `auto` and has chosen a different one.

        Args:
            number_format: `fp32` or `bf16`.

        Returns:
            Whether the format was different.
        """
        if self.precision != "auto" or number_format == self.number_format:
            return False
        self.precision, self.bf16 = number_format, number_format == "bf16"
        self.mixed_precision = "bf16" if self.bf16 else "no"
        return True

    def _check_selection(self) -> None:
        """Check that there are evaluations for the decisions that need them, and the weights of the tasks."""
        if isinstance(self.loss_weights, str):  # JSON of a command line is a dict by now
            raise ValueError(f"`loss_weights` should map tasks to weights. Found {self.loss_weights!r}.")
        check_loss_weights(self.loss_weights or {})
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError(
                "`early_stopping_patience` needs `load_best_model_at_end: true`. Set it, or leave out "
                "`early_stopping_patience`."
            )
        needing = {
            "freeze_patience": self.freeze_patience is not None,
            "load_best_model_at_end": self.load_best_model_at_end,
            "save_strategy: best": self.save_strategy == SaveStrategy.BEST,
        }
        for name in [name for name, is_set in needing.items() if is_set and self.eval_strategy == "no"]:
            raise ValueError(
                f"`{name}` needs evaluations during training. Set `eval_strategy` to 'epoch' or 'steps', or leave out "
                f"`{name}`."
            )
        steps, warmup = self.max_steps, self.warmup_steps
        if 0 < steps < warmup:
            raise ValueError(
                f"`warmup_steps` should be at most `max_steps` ({steps}), since the learning rate would not reach its "
                f"value. Found {warmup:g}. A number below 1 is a share of all steps."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as plain data, which `report_to` writes and sends, without values of the environment."""
        return _concealed(super().to_dict())

    @property
    def n_gpu(self) -> int:
        """Number of devices of this process, at most 1, since Trainer's DataParallel cannot split multitask batches."""
        return min(super().n_gpu, 1)


def _concealed(value: Any) -> Any:
    """Return plain data with the variable instead of each value that a recipe took from the environment."""
    if isinstance(value, dict):
        return {key: _concealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_concealed(item) for item in value]
    return conceal(value) if isinstance(value, str) else value


def check_layer_decay(model: MultitaskModel, args: MultitaskTrainingArguments) -> None:
    """Check that a model has the layers that `layer_lr_decay` needs.

    Raises:
        ValueError: if `layer_lr_decay` is set and the layers of the encoder are unknown.
    """
    if args.layer_lr_decay is None:
        return
    try:
        layers_of(model.encoder)
    except ValueError as error:
        raise ValueError(f"`layer_lr_decay`: {error} Leave it out.") from error


def check_adapter_arguments(model: MultitaskModel, args: MultitaskTrainingArguments, *, is_sharded: bool) -> None:
    """Check that the arguments for adapters fit the adapters of a model.

    Args:
        model: the model.
        args: the training arguments.
        is_sharded: whether parameters are sharded (FSDP).

    Raises:
        ValueError: if `adapter_learning_rate` is set for a model without adapters, or if parameters are sharded and
            each adapter needs a separate encoder pass. Processes with different tasks would take different numbers of
            passes and block each other.
    """
    if args.adapter_learning_rate is not None and not model.adapter_names:
        raise ValueError(
            "`adapter_learning_rate` needs a model with adapters, and this model has none. Leave it out, or add "
            "adapters."
        )
    if (
        is_sharded
        and not supports_mixed_batches(model.config.text_config, model.config.adapters or ())
        and model.adapter_names
    ):
        raise ValueError(
            "FSDP does not support DoRA adapters and adapters of a DeBERTa encoder: each adapter takes a separate "
            "encoder pass, and processes with different tasks would block each other. Train without FSDP."
        )
