"""Settings of a training that have no effect on this machine or the wrong one: refusals and notes."""

from __future__ import annotations

import torch
from transformers.trainer_utils import SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from mtl_nlp.errors import RecipeError
from mtl_nlp.training.arguments import MultitaskTrainingArguments

_LARGE_RATE = 0.1
"""The learning rate from which a note asks for a look; encoders are trained with 1e-5 to 1e-3."""


def check_settings(arguments: MultitaskTrainingArguments) -> None:
    """Check that the precision has an effect on this machine, and that the best checkpoint is not the worst.

    Args:
        arguments: the training arguments of a recipe.

    Raises:
        RecipeError: if `fp16` is set on a CPU, or a smaller loss counts as worse.
    """
    if arguments.fp16 and not torch.accelerator.is_available():
        raise RecipeError(
            "training.fp16: has no effect on a CPU, where the training would be in float32. Set `bf16: true`, which "
            "CPUs support, or leave it out."
        )
    if _is_loss(arguments.metric_for_best_model) and arguments.greater_is_better:
        raise RecipeError(
            f"training.greater_is_better: true keeps the checkpoint with the largest "
            f"{arguments.metric_for_best_model}, which is the worst. Leave it out."
        )


def describe_settings(arguments: MultitaskTrainingArguments) -> list[str]:
    """Return sentences about training arguments that probably are not what the user meant.

    Args:
        arguments: the training arguments of a recipe.
    """
    rates = {
        "learning_rate": arguments.learning_rate,
        "head_learning_rate": arguments.head_learning_rate,
        "adapter_learning_rate": arguments.adapter_learning_rate,
    }
    notes = [
        f"training.{name}: {rate:g} is far above the usual 1e-5 to 1e-3, so the training will probably diverge"
        for name, rate in rates.items()
        if rate is not None and rate > _LARGE_RATE and OptimizerNames(arguments.optim) != OptimizerNames.SGD
    ]
    metric = arguments.metric_for_best_model
    reads_metric = (
        arguments.load_best_model_at_end
        or arguments.save_strategy == SaveStrategy.BEST
        or arguments.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU
    )
    if metric is not None and not reads_metric:
        notes.append(
            f"training.metric_for_best_model: {metric} has no effect without load_best_model_at_end: true, so the "
            f"model of the last step is kept"
        )
    return notes


def _is_loss(metric: str | None) -> bool:
    return metric is not None and (metric == "loss" or metric.endswith("_loss"))
