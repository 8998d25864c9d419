"""Adapters: a LoRA (Hu et al. 2022) per task on one shared encoder.

The adapter layers are PEFT layers, and their weights have PEFT's names. This module does not import PEFT, so that
models without adapters do not need PEFT. `lora_multitask` defines the layers and adds them to an encoder.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

SHARED = "shared"
"""Name of the adapter that applies to all tasks."""

_NOT_READING_ROWS = {"deberta", "deberta-v2", "led", "longformer", "xlnet"}
"""Families with linear layers that do not read one input per row: relative positions, or positions before rows."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]*")
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]")


class RoutedLayer(nn.Module):
    """Base class of layers with adapters, for `isinstance` checks without PEFT. Its subclass is `RoutedLinear`."""

    def parameters_of(self, names: Iterable[str] | None) -> list[nn.Parameter]:
        """Return the parameters of the named adapters; of all adapters if `names` is None."""
        return [
            parameter
            for kind in (self.lora_A, self.lora_B, self.lora_magnitude_vector)
            for name in (kind if names is None else names)
            if name in kind
            for parameter in kind[name].parameters()
        ]


def peft_adapter_name(name: str) -> str:
    """Return an adapter's name in PEFT layers, which consists of ASCII letters, digits and `_`.

    The names of weights contain this name, and PEFT and transformers read the names of weights as regular expressions.
    The name also differs from the task's, since PEFT layers hold adapters as submodules, and a submodule cannot have a
    name such as `type`.

    Args:
        name: a task, or `shared`.

    Returns:
        `task_ner` for the task `ner`. In a task's name with any other character, such as `a.b`, every character except
        letters and digits is written as its code point: `escaped_task_a_2e_b`. Different adapters have different names.
    """
    if name == SHARED:
        return name
    if _PLAIN_NAME.fullmatch(name):
        return f"task_{name}"
    return "escaped_task_" + _NOT_ALPHANUMERIC.sub(lambda match: f"_{ord(match.group()):x}_", name)


def supports_mixed_batches(text_config: Any, adapters: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether one encoder pass can read rows of several adapters. If not, each adapter takes a separate pass.

    DoRA (Liu et al. 2024) needs separate passes, since it divides by the norm of the adapted weight, which is different
    for each adapter.

    Args:
        text_config: the encoder's configuration.
        adapters: the options of each adapter, see `MultitaskConfig`.
    """
    return text_config.model_type not in _NOT_READING_ROWS and not any(options["use_dora"] for options in adapters)


def delete_adapter(encoder: nn.Module, name: str) -> None:
    """Remove an adapter from an encoder, and replace PEFT layers without adapters by their plain layers."""
    for layer_name, layer in list(routed_layers(encoder).items()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active")  # the route chooses the adapters
            layer.delete_adapter(name)
        if not layer.lora_A:
            encoder.set_submodule(layer_name, layer.get_base_layer())
    encoder.peft_config.pop(name)


def adapter_parameters(encoder: nn.Module, names: Iterable[str] | None = None) -> list[nn.Parameter]:
    """Return the parameters of the named adapters in the order of the layers; of all adapters if `names` is None."""
    wanted = None if names is None else list(names)
    return [parameter for layer in routed_layers(encoder).values() for parameter in layer.parameters_of(wanted)]


def low_rank_factors(encoder: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return the low-rank factors of the named adapters.

    Returns:
        For each layer with any of these adapters, a pair per adapter in the order of `names`: A, shape (r, in), and
        B times the adapter's scaling, shape (out, r).
    """
    names = list(names)
    factors = {
        layer_name: [
            (_unsharded(layer.lora_A[name].weight), _unsharded(layer.lora_B[name].weight) * layer.scaling[name])
            for name in names
            if name in layer.lora_A
        ]
        for layer_name, layer in routed_layers(encoder).items()
    }
    return {layer_name: pairs for layer_name, pairs in factors.items() if pairs}


def merged_state(encoder: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the encoder's state dict after merging the named adapters, with the names of an encoder without PEFT."""
    names = list(names)
    state = {
        key.replace(".base_layer.", "."): tensor for key, tensor in encoder.state_dict().items() if ".lora_" not in key
    }
    for layer_name, layer in routed_layers(encoder).items():
        if merged := [name for name in names if name in layer.lora_A]:
            layer = copy.deepcopy(layer)
            layer.merge(adapter_names=merged)
            state[f"{layer_name}.weight"] = layer.get_base_layer().weight.detach()
    return state


def _unsharded(weight: torch.Tensor) -> torch.Tensor:
    """Return the unsharded weight. FSDP shards each weight outside of its layer's forward pass."""
    if not dist.is_available() or not dist.is_initialized():
        return weight
    from torch.distributed.tensor import DTensor

    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def routed_layers(module: nn.Module, prefix: str = "") -> dict[str, RoutedLayer]:
    """Return the layers with adapters by name.

    `named_modules` is slower, since it also visits every adapter of every layer.
    """
    found: dict[str, RoutedLayer] = {}
    for name, child in module.named_children():
        if isinstance(child, RoutedLayer):
            found[prefix + name] = child
        else:
            found |= routed_layers(child, f"{prefix}{name}.")
    return found
