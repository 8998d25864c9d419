"""Models for trainers on toy splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from toy_splits import TASKS
from toys import build_config, liven_adapters

from mtl_nlp import (
    MultitaskConfig,
    MultitaskModel,
    MultitaskTrainer,
)


def build_model(tasks: list | None = None, family: str = "bert", **config: Any) -> MultitaskModel:
    torch.manual_seed(0)
    return MultitaskModel(MultitaskConfig(text_config=build_config(family, **config), tasks=tasks or [*TASKS.values()]))


def adapted_model(
    adapters: Sequence[str] = ("shared", "pos", "topic"), family: str = "bert", std: float = 0.2, **options: Any
) -> MultitaskModel:
    """Build a model whose adapters change the encoder, unless `std` is 0; ner and score have no adapter."""
    model = build_model(family=family, classifier_dropout_prob=0.0)  # ALBERT's name of the setting
    for name in adapters:
        model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options), name)
    return liven_adapters(model, std)


def assert_same_weights(model: torch.nn.Module, other: torch.nn.Module) -> None:
    others = other.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in model.state_dict().items())


def logs_of(trainer: MultitaskTrainer) -> list[dict[str, float]]:
    """Return the entries of the log with losses, without the speed, which no two trainings have in common."""
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{key: value for key, value in entry.items() if key != "tokens_per_second"} for entry in logs]
