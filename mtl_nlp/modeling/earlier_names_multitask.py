"""Names of weights in models that an earlier release saved."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from .adapters_multitask import peft_adapter_name

_WEIGHT_OF_TASK = re.compile(r"(\.lora_\w+\.)(task_[^.]*)(\.weight)$")
"""The end of the name of an adapter's weight. Earlier releases wrote `.` in a task as `%2E`, and `%` as `%25`."""


def current_name(weight: str) -> str:
    """Return the current name of a weight, given its current or earlier name."""
    return _WEIGHT_OF_TASK.sub(_with_current_adapter_name, weight)


def _with_current_adapter_name(match: re.Match[str]) -> str:
    before, adapter, after = match.groups()
    task = adapter.removeprefix("task_").replace("%2E", ".").replace("%25", "%")
    return f"{before}{peft_adapter_name(task)}{after}"


class _EarlierNames(WeightRenaming):
    """The step of `from_pretrained` that renames weights with an earlier name."""

    __slots__ = ()

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """Return the current name of a weight.

        The step is not marked as used, since `save_pretrained` would then write the earlier names again.
        """
        return current_name(source_key), None


def load_earlier_names(model_class: str) -> None:
    """Let `from_pretrained` of a class of models accept earlier names of weights.

    Args:
        model_class: the name of the class.
    """
    step = _EarlierNames(source_patterns="earlier", target_patterns="current")
    register_checkpoint_conversion_mapping(model_class, [step], overwrite=True)


def rename_in_place(module: nn.Module, state_dict: dict[str, Any], *args: Any) -> None:
    """Rename the weights in a state dict, as a hook of a model before `load_state_dict`."""
    for name in list(state_dict):
        if (current := current_name(name)) != name:
            state_dict[current] = state_dict.pop(name)
