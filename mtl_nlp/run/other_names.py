"""Sentences for names that look like training arguments, but are not: gone from transformers, or decided elsewhere."""

from __future__ import annotations

_LENGTHS = "The mixture groups rows by length within windows of batches. Set `mixture.length_window`, or leave it out."
_BATCHES = "Set `per_device_train_batch_size`."
_OWN_BATCHES = "Each process makes its own batches of the mixture. Leave it out."
_GONE = "transformers 5 has removed it. Leave it out."

OTHER_NAMES = {
    "batch_size": _BATCHES,
    "bf16_backend": _GONE,
    "data_collator": "The collator follows from the tasks. Leave it out, or pass a collator to MultitaskTrainer.",
    "dispatch_batches": _OWN_BATCHES,
    "epochs": "Set `num_train_epochs`.",
    "evaluation_strategy": "Set `eval_strategy`.",
    "fp16_backend": _GONE,
    "fp16_opt_level": _GONE,
    "gradient_accumulation": "Set `gradient_accumulation_steps`.",
    "group_by_length": _LENGTHS,
    "half_precision_backend": _GONE,
    "include_inputs_for_metrics": "The metrics follow from the types of the tasks. Leave it out.",
    "include_tokens_per_second": _GONE,
    "jit_mode_eval": _GONE,
    "logging_dir": "Set the environment variable `TENSORBOARD_LOGGING_DIR`.",
    "lr": "Set `learning_rate`.",
    "lr_scheduler": "Set `lr_scheduler_type`.",
    "max_length": "Set the recipe key `max_length`.",
    "max_seq_length": "Set the recipe key `max_length`.",
    "mp_parameters": _GONE,
    "no_cuda": "Set `use_cpu`.",
    "num_epochs": "Set `num_train_epochs`.",
    "num_train_steps": "Set `max_steps`.",
    "optimizer": "Set `optim`.",
    "overwrite_output_dir": "Use the option `--overwrite` of `mtl-nlp train`.",
    "past_index": _GONE,
    "per_gpu_eval_batch_size": "Set `per_device_eval_batch_size`.",
    "per_gpu_train_batch_size": _BATCHES,
    "predict_with_generate": "No task of an encoder generates text. Leave it out.",
    "push_to_hub_model_id": "Set `hub_model_id`.",
    "push_to_hub_organization": "Set `hub_model_id: ORGANIZATION/NAME`.",
    "push_to_hub_token": "Log in with `hf auth login`, or set the environment variable `HF_TOKEN`.",
    "ray_scope": _GONE,
    "save_safetensors": "Models are always saved as safetensors. Leave it out.",
    "sharded_ddp": "Set `fsdp`.",
    "split_batches": _OWN_BATCHES,
    "torchdynamo": "Set `torch_compile` and `torch_compile_backend`.",
    "tpu_metrics_debug": "Set `debug: tpu_metrics_debug`.",
    "tpu_num_cores": _GONE,
    "train_batch_size": _BATCHES,
    "use_ipex": _GONE,
    "use_legacy_prediction_loop": _GONE,
    "use_mps_device": "The device is chosen automatically. Leave it out.",
    "warmup_ratio": "Set `warmup_steps`: a number below 1 is a share of all steps.",
    "world_size": "The launcher sets the number of processes: accelerate launch --num_processes N -m mtl_nlp train …",
    "xpu_backend": "Set `ddp_backend`.",
}
"""Name -> a sentence on the key to set instead."""

NOT_IN_RECIPES = {
    "do_train": "`mtl-nlp train` always trains. Leave it out.",
    "do_eval": "Set `eval_strategy` for evaluations during training. The trained model is always scored. Leave it out.",
    "do_predict": "The predictions on the test split are always written. Leave it out.",
    "local_rank": "The launcher sets it: accelerate launch --num_processes N -m mtl_nlp train …",
    "resume_from_checkpoint": "Use the option `--resume` of `mtl-nlp train`. Leave it out.",
}
"""Training argument that only scripts read -> a sentence on its place in mtl_nlp."""
