"""Values of training arguments: right and wrong types, ends of ranges, choices of each field, and nonsense."""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from ranges import TRAINING_RANGES
from trees import odd_value

from mtl_nlp.run.arguments import RESERVED
from mtl_nlp.training.arguments import MultitaskTrainingArguments

FIELDS = {
    field.name: field
    for field in dataclasses.fields(MultitaskTrainingArguments)
    if field.init or field.name in RESERVED
}
"""Every training argument by name."""
TYPES = get_type_hints(MultitaskTrainingArguments)
SLOW = {"torch_compile", "torch_compile_backend", "torch_compile_mode", "max_steps", "num_train_epochs", "log_level"}
"""The arguments that only `plan` gets: a compiler or a long training takes minutes, and log messages are lines."""

_CHOICES: dict[str, tuple[Any, ...]] = {
    "report_to": ("none", "all", "tensorboard", "wandb", "x", [], ["none"], ["tensorboard", "x"], "a,b"),
    "metric_for_best_model": ("mtl_score", "eval_mtl_score", "loss", "eval_loss", "ner_f1", "eval_ner_f1", "ner_f2"),
    "optim_args": ("", "x", "a=1", "a=1,b", "lr=x", "rank=64, update_proj_gap=100"),
    "optim_target_modules": ("all-linear", "x", [], ["attn"], ".*(", [".*"]),
    "lr_scheduler_kwargs": ({}, {"num_cycles": 2}, {"x": 1}, '{"num_cycles": 2}', "{", {"num_cycles": "x"}),
    "gradient_checkpointing_kwargs": ({}, {"use_reentrant": False}, {"x": 1}, "{", {"use_reentrant": "x"}),
    "accelerator_config": ({}, {"split_batches": True}, {"x": 1}, "{", "x.json", {"dispatch_batches": True}),
    "parallelism_config": ({}, {"tp_size": 2}, "x"),
    "fsdp": (True, "full_shard", "x", "full_shard auto_wrap", ["full_shard"]),
    "fsdp_config": ({}, {"x": 1}, "x.json", "{", {"min_num_params": -1}),
    "deepspeed": ({}, {"x": 1}, "x.json", "{", {"zero_optimization": {"stage": 3}}),
    "liger_kernel_config": ({}, {"rope": True}, {"x": 1}, "x"),
    "debug": ("", "underflow_overflow", "tpu_metrics_debug", "x", [], ["x"]),
    "resume_from_checkpoint": ("checkpoint-1", "run/checkpoint-1", "run", True, "", "last"),
    "hub_model_id": ("ada/fuzzed", "x", "a/b/c", "", "ada/ü"),
    "label_names": ([], ["labels"], ["x"], "labels", [1]),
    "ddp_backend": ("nccl", "gloo", "x", ""),
    "dataloader_multiprocessing_context": ("fork", "spawn", "x", ""),
    "include_num_input_tokens_seen": (True, False, "all", "non_padding", "no", "x"),
    "include_for_metrics": ([], ["loss"], ["inputs"], ["x"], "loss"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "x"),
    "loss_scale": ("rows", "per_task", "x"),
    "on_nonfinite": ("stop", "skip", "x"),
    "log_level_replica": ("debug", "info", "warning", "x", 10),
    "trackio_space_id": ("ada/x", "", False),
}
"""Training argument -> values for an argument whose type does not name the valid ones."""
_LIKE_BOOLEANS = (True, False, "true", "no", "off", "on", "False", 0, 1, 2, None, "maybe", [], 0.0)
_WITH_OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"eval_strategy": "epoch"},
    {"eval_strategy": "steps", "eval_steps": 1},
    {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    {"dataloader_num_workers": 1},
    {"lr_scheduler_type": "cosine_with_restarts"},
    {"gradient_checkpointing": True},
)
"""Arguments that give other arguments an effect."""


def odd_arguments(data: DataObject, without: set[str]) -> tuple[dict[str, Any], str]:
    """Draw one to three arguments with values of any kind.

    Args:
        data: chooses the arguments.
        without: arguments that are not drawn.

    Returns:
        The arguments, and a description.
    """
    others = copy.deepcopy(data.draw(st.sampled_from(_WITH_OTHERS)))
    names = data.draw(
        st.lists(st.sampled_from([name for name in FIELDS if name not in without]), min_size=1, max_size=2, unique=True)
    )
    drawn = {name: argument_value(data, name) for name in names}
    return {**others, **drawn}, ", ".join(f"{name}={value!r:.80}" for name, value in {**others, **drawn}.items())


def argument_value(data: DataObject, name: str) -> Any:
    """Draw a value of an argument: nonsense in one of four cases, else a value that its type suggests."""
    if data.draw(st.integers(0, 3)) == 0:
        return odd_value(data, FIELDS[name].default)
    value = copy.deepcopy(data.draw(st.sampled_from([*likely_values(name)])))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and data.draw(st.integers(0, 5)) == 0 else value


def likely_values(name: str) -> Iterator[Any]:
    """Yield the values that the type of an argument suggests: choices, ends of its range, booleans, numbers."""
    yield from _CHOICES.get(name, ())
    if name in TRAINING_RANGES:
        inside, outside = TRAINING_RANGES[name].ends()
        yield from [*inside, *outside, None, 2, 0.5]
    for kind in (TYPES[name], *get_args(TYPES[name])):
        if kind is bool:
            yield from _LIKE_BOOLEANS
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            yield from (member.value for member in kind)
            yield from ("x", False, None, "")
    yield from (None, "x", FIELDS[name].default if isinstance(FIELDS[name].default, str | int | float) else None)
