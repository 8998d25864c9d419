"""Arguments of Trainer that have no effect here, or would break what a multitask training promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers.trainer_pt_utils import AcceleratorConfig

_EVALUATION = (
    "has no effect here: an evaluation always has losses, scores and, with `compute_metrics`, the logits and labels of "
    "complete texts."
)
_LIGER = "is not supported, since the kernels of Liger are for the losses and layers of decoders."

REFUSED = {
    "train_sampling_strategy": "should be 'random', since the mixture orders and groups the batches.",
    "dataloader_drop_last": "should be false, since the mixture orders and groups the batches and drops none.",
    "dataloader_in_order": "should be true, since a run with batches in any other order could not be resumed.",
    "auto_find_batch_size": (
        "should be false, since the mixture fixes all batches before training, in all processes alike. For less memory "
        "set a smaller `per_device_train_batch_size` with more `gradient_accumulation_steps`, or "
        "`max_tokens_per_batch`."
    ),
    "average_tokens_across_devices": "should be true, since the loss is a mean over the labels of all processes.",
    "label_names": "should be ['labels'], the key of a batch with the labels of all tasks.",
    "enable_jit_checkpoint": (
        "should be false, since its processes stop at different steps: `mtl-nlp train` saves a checkpoint at SIGTERM, "
        "and in Python `MultitaskTrainer.request_stop` does."
    ),
    "logging_nan_inf_filter": (
        "should be false, since a run ends if a loss or gradient is not finite, and the filter would log such a loss "
        "as 0."
    ),
    "batch_eval_metrics": _EVALUATION,
    "prediction_loss_only": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "use_liger_kernel": _LIGER,
    "liger_kernel_config": _LIGER,
    "parallelism_config": "is not supported, since it splits the tokens or the layers of a batch over processes.",
}
"""Training argument -> the reason for which it should have its default."""

_OF_LOADERS = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler", "non_blocking")


def check_refused(values: Mapping[str, Any], fields: tuple[dataclasses.Field[Any], ...]) -> None:
    """Check that the arguments of Trainer without an effect have their defaults.

    Args:
        values: the training arguments by name.
        fields: the fields of the training arguments.

    Raises:
        ValueError: if an argument of `REFUSED` differs from its default.
    """
    for field in fields:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in REFUSED and values[field.name] != default:
            found = f"Found {values[field.name]!r:.80}."
            raise ValueError(f"`{field.name}` {REFUSED[field.name]} {found} Leave it out.")


def check_accelerator(config: AcceleratorConfig) -> None:
    """Check that `accelerator_config` has no settings for the loaders and steps of accelerate, which are not used.

    Raises:
        ValueError: if a setting has no effect.
    """
    given, defaults = vars(config), vars(AcceleratorConfig())
    for name in _OF_LOADERS:
        if given[name] != defaults[name]:
            raise ValueError(
                f"`accelerator_config.{name}` has no effect, since each process makes its own batches of the mixture. "
                f"Leave it out."
            )
    if "num_steps" in (config.gradient_accumulation_kwargs or {}):
        raise ValueError("`accelerator_config`: set `gradient_accumulation_steps` instead of `num_steps`.")
