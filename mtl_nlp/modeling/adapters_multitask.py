"""Adapters: a LoRA (Hu et al. 2022) for each task on one encoder, and rows of several tasks in one pass.

The layers are PEFT's, and their weights have PEFT's names. This module works without PEFT, so that a model without
adapters does not need it; `lora_multitask` has the layers and adds them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

SHARED = "shared"
"""The name of the adapter that all tasks go through."""

_NOT_ROWS = {"deberta", "deberta-v2"}
"""Families that put something else than rows, relative positions, through the layers that rows go through."""


class RoutedLayer(nn.Module):
    """A layer with adapters, by which such layers are found without PEFT. `lora_multitask` has the layer itself."""

    def parameters_of(self, names: Iterable[str] | None) -> list[nn.Parameter]:
        """Return the parameters of the named adapters, or of all adapters."""
        return [
            parameter
            for kind in (self.lora_A, self.lora_B, self.lora_magnitude_vector)
            for name in (kind if names is None else names)
            if name in kind
            for parameter in kind[name].parameters()
        ]


def peft_adapter_name(name: str) -> str:
    """The name that PEFT's layers know an adapter by: task names such as `a.b` or `type` cannot be a module's."""
    return name if name == SHARED else "task_" + name.replace("%", "%25").replace(".", "%2E")


def supports_mixed_batches(text_config: Any, adapters: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one encoder pass can hold rows of several adapters; else each adapter's rows take a pass of their own.

    DoRA (Liu et al. 2024) divides by the norm of the whole changed weight, of which there is one for each adapter.
    """
    return text_config.model_type not in _NOT_ROWS and not any(options["use_dora"] for options in adapters)


def delete_adapter(encoder: nn.Module, name: str) -> None:
    """Take an adapter out of an encoder, and PEFT's layers where none is left."""
    for layer_name, layer in list(routed_layers(encoder).items()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active")  # the route says which are
            layer.delete_adapter(name)
        if not layer.lora_A:
            encoder.set_submodule(layer_name, layer.get_base_layer())
    encoder.peft_config.pop(name)


def adapter_parameters(encoder: nn.Module, names: Iterable[str] | None = None) -> list[nn.Parameter]:
    """The parameters of some adapters, or of all, in the order of the layers."""
    wanted = None if names is None else list(names)
    return [parameter for layer in routed_layers(encoder).values() for parameter in layer.parameters_of(wanted)]


def low_rank_factors(encoder: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """For each layer that has one of some adapters, A, shape (r, in), and scaled B, (out, r), of each in order."""
    names = list(names)
    factors = {
        layer_name: [
            (_gathered(layer.lora_A[name].weight), _gathered(layer.lora_B[name].weight) * layer.scaling[name])
            for name in names
            if name in layer.lora_A
        ]
        for layer_name, layer in routed_layers(encoder).items()
    }
    return {layer_name: of_layer for layer_name, of_layer in factors.items() if of_layer}


def merged_state(encoder: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The encoder's weights with some adapters merged in by PEFT, under the plain encoder's names."""
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


def _gathered(weight: torch.Tensor) -> torch.Tensor:
    """A weight as a whole, which under FSDP it is in its own layer's forward pass only."""
    if not dist.is_available() or not dist.is_initialized():
        return weight
    from torch.distributed.tensor import DTensor

    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def routed_layers(module: nn.Module, prefix: str = "") -> dict[str, RoutedLayer]:
    """The layers with adapters by name. Not by `named_modules`, which walks through every adapter of every layer."""
    found: dict[str, RoutedLayer] = {}
    for name, child in module.named_children():
        if isinstance(child, RoutedLayer):
            found[prefix + name] = child
        else:
            found |= routed_layers(child, f"{prefix}{name}.")
    return found
