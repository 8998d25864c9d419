from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.run.other_names import NOT_IN_RECIPES
from mtl_nlp.training.refusals import REFUSED

OTHER = {
    "train_sampling_strategy": "group_by_length",
    "dataloader_in_order": False,
    "average_tokens_across_devices": False,
    "eval_do_concat_batches": False,
    "label_names": ["pos"],
    "include_for_metrics": ["loss"],
    "liger_kernel_config": {"rope": True},
    "parallelism_config": object(),
}
"""Refused argument -> a value that is not its default; true for all others."""

HAS_AN_EFFECT = """
output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
optim_target_modules gradient_accumulation_steps max_grad_norm label_smoothing_factor bf16 fp16 bf16_full_eval
fp16_full_eval tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode neftune_noise_alpha
torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node
include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id
trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size
eval_on_start save_only_model save_strategy save_steps save_on_each_node save_total_limit push_to_hub hub_token
hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model
greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu
accelerator_config dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
dataloader_prefetch_factor dataloader_multiprocessing_context ddp_find_unused_parameters ddp_bucket_cap_mb
ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug skip_memory_metrics
loss_weights loss_scale max_tokens_per_batch head_learning_rate layer_lr_decay adapter_learning_rate adapter_pull
early_stopping_patience freeze_patience on_nonfinite precision conflict_every
"""
"""Fields that a training, its log, its evaluations, its checkpoints or its push depend on."""

HARMLESS = {
    "use_cache": "an encoder has no cache of keys and values; Trainer sets it for decoders",
    "eval_use_gather_object": "an evaluation always gathers objects",
    "eval_accumulation_steps": "each batch of an evaluation is decoded on the host at once",
    "remove_unused_columns": "a batch has only the columns of the model",
    "length_column_name": "Trainer itself reads it only for `train_sampling_strategy: group_by_length`",
}
"""Field without an effect -> the reason for which no user misses the effect."""


def test_every_training_argument_has_an_effect_is_refused_or_is_harmless():
    names = {field.name for field in dataclasses.fields(MultitaskTrainingArguments) if field.init}
    groups = [HAS_AN_EFFECT.split(), REFUSED.keys(), NOT_IN_RECIPES.keys(), HARMLESS.keys()]
    known = [name for group in groups for name in group]
    assert sorted(known) == sorted(set(known)), "a field is in two groups"
    assert names - set(known) == set(), "a new release of transformers has fields that nobody has tried here"


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_without_effect_is_refused_with_its_reason(tmp_path, name):
    given: dict[str, Any] = {name: OTHER.get(name, True)}
    with pytest.raises(ValueError, match=rf"^`{name}` .* Found .*\. Leave it out\.$"):
        MultitaskTrainingArguments(str(tmp_path), **given)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"split_batches": True}, "`accelerator_config.split_batches` has no effect"),
        ({"even_batches": False}, "`accelerator_config.even_batches` has no effect"),
        (
            {"gradient_accumulation_kwargs": {"num_steps": 2}},
            "set `gradient_accumulation_steps` instead of `num_steps`",
        ),
    ],
)
def test_settings_of_loaders_that_are_not_used_are_refused(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        MultitaskTrainingArguments(str(tmp_path), accelerator_config=config)
    sync = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    MultitaskTrainingArguments(str(tmp_path), accelerator_config=sync)
