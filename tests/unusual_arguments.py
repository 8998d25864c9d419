"""Unusual training arguments: each is accepted by the plan and trains, or is refused in one line."""

from __future__ import annotations

from typing import Any

EVERY_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch"}
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}

_OPTIMIZERS = (
    *(
        "adamw_torch",
        "adafactor",
        "sgd",
        "adagrad",
        "rmsprop",
        "adamw_8bit",
        "lion_8bit",
        "ademamix",
        "adamw_anyprecision",
    ),
    *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_apex_fused", "galore_adamw", "lomo", "adalomo", "grokadamw"),
    *("adamw_torch_4bit", "adamw_torch_8bit", "schedule_free_adamw", "apollo_adamw", "stable_adamw", "adam", ""),
)
_SCHEDULES = (
    *("cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("cosine_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy", "triangular"),
)
_KWARGS: tuple[tuple[str, Any], ...] = (
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("cosine_with_min_lr", {"min_lr": 1e-6}),
    ("cosine_with_min_lr", {"min_lr": "small"}),
    ("cosine_with_min_lr", {}),
    ("warmup_stable_decay", {"num_decay_steps": 1, "num_stable_steps": 0}),
    ("warmup_stable_decay", {"num_decay_steps": "x"}),
    ("polynomial", {"power": "x"}),
    ("polynomial", {"lr_end": 1.0}),
    ("linear", {"nonsense": 1}),
    ("cosine", "num_cycles=2"),
    ("cosine", '{"num_cycles": 0.5}'),
    ("cosine", [1]),
)

UNUSUAL: list[dict[str, Any]] = [
    *({"optim": name} for name in _OPTIMIZERS),
    *({"lr_scheduler_type": name} for name in _SCHEDULES),
    *({"lr_scheduler_type": name, "lr_scheduler_kwargs": kwargs} for name, kwargs in _KWARGS),
    {"lr_scheduler_type": "reduce_lr_on_plateau", **EVERY_STEP},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": "x"}, **EVERY_STEP},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"nonsense": 1}, **EVERY_STEP},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "nonsense", **EVERY_STEP},
    {"lr_scheduler_type": "greedy", **EVERY_STEP},
    *({"optim": "adafactor", "optim_args": given} for given in ("scale_parameter=True", "nonsense", "x=1")),
    *({"optim": "sgd", "optim_args": given} for given in ("momentum=0.9", "momentum=x", "nesterov=True")),
    {"optim": "adamw_torch_fused", "optim_args": "betas=(0.9"},
    {"optim": "galore_adamw", "optim_target_modules": ["query"]},
    {"optim": "adamw_torch", "optim_target_modules": "query"},
    *({"fsdp": fsdp} for fsdp in ("full_shard", "full_shard auto_wrap", "nonsense", "offload", True, "")),
    {"fsdp": "full_shard", "fsdp_config": {"nonsense": 1}},
    {"fsdp": "full_shard", "fsdp_config": "nowhere.json"},
    {"fsdp_config": {"min_num_params": -1}},
    *({"deepspeed": given} for given in ("nowhere.json", {"zero_optimization": {"stage": 2}}, {}, "nonsense")),
    *(
        {"report_to": given}
        for given in ("tensorboard", "wandb", "all", "nonsense", ["tensorboard", "x"], [], "none", 3)
    ),
    {"torch_compile_backend": "nonsense"},
    {"torch_compile_mode": "nonsense"},
    *({"hub_strategy": given} for given in ("end", "checkpoint", "nonsense", 3)),
    *({"accelerator_config": given} for given in ({}, {"nonsense": 1}, {"split_batches": True}, "nowhere.json", [1])),
    {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}}},
    {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}},
    {"accelerator_config": {"gradient_accumulation_kwargs": {"nonsense": 1}}},
    {"dataloader_num_workers": 0, "dataloader_prefetch_factor": 2},
    {"dataloader_num_workers": 0, "dataloader_persistent_workers": True},
    {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "nonsense"},
    {"dataloader_multiprocessing_context": "fork"},
    {"dataloader_pin_memory": "no"},
    {"use_liger_kernel": True},
    *({"neftune_noise_alpha": given} for given in (5, 0, -1, "x")),
    *({"ddp_backend": given} for given in ("gloo", "nonsense")),
    {"tf32": True},
    {"tf32": False},
    {"bf16": True, "fp16": True},
    {"bf16": True},
    {"fp16": True},
    {"fp16_full_eval": True, **EVERY_STEP},
    {"bf16_full_eval": True, **EVERY_STEP},
    {"bf16_full_eval": True, "fp16_full_eval": True},
    *(
        {"gradient_checkpointing_kwargs": given, "gradient_checkpointing": True}
        for given in ({"use_reentrant": False}, {})
    ),
    *({"activation_checkpointing": True, "activation_checkpointing_kwargs": {key: 1}} for key in ("nonsense", "debug")),
    *(
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": n}}
        for n in (2, 0, "x")
    ),
    *({"debug": given} for given in ("underflow_overflow", "tpu_metrics_debug", "nonsense", ["x"])),
    *({"log_level": given} for given in ("warning", "nonsense", 3)),
    *({"include_num_input_tokens_seen": given} for given in (True, "non_padding", "nonsense")),
    {"full_determinism": True},
    {"skip_memory_metrics": False},
    {"save_total_limit": 1, **EVERY_STEP},
    {"save_only_model": True, **EVERY_STEP},
    {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 1},
    {"save_strategy": "best"},
    {"load_best_model_at_end": True},
    {"load_best_model_at_end": True, "early_stopping_patience": 1},
    {"load_best_model_at_end": True, "early_stopping_patience": 1, **EVERY_STEP},
    {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 3,
    },
    {"eval_strategy": "steps", "eval_steps": 0.5, "eval_delay": 1, "eval_on_start": True},
    {"logging_steps": 0.5, "logging_first_step": True},
    {"auto_find_batch_size": True},
    {"warmup_steps": 3},
    {"torch_empty_cache_steps": 1},
    {"label_smoothing_factor": 0.1},
    {"ignore_data_skip": True, "data_seed": 7},
    {"trackio_space_id": 3, "project": "x", "run_name": 2026},
    {"metric_for_best_model": "nonsense", **EVERY_STEP},
    {"metric_for_best_model": "eval_pos_accuracy", **EVERY_STEP},
    {"greater_is_better": "perhaps"},
    {"use_cache": True},
]
"""Training arguments, each for a recipe of two optimizer steps."""
