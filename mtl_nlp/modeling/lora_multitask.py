"""The LoRA layers of adapters: PEFT's, with a way through them for each row of a batch.

PEFT injects the layers, and refuses `adapter_names` in training, so that rows of several adapters would need a pass
each. Only models with adapters import this module, since it needs PEFT.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils.peft_utils import check_peft_version

from .adapters_multitask import RoutedLayer, routed_layers
from .configuration_multitask import ADAPTER_OPTIONS
from .loss_multitask import ZeroGradients
from .routing_multitask import Route, current_route

# A package that code on the Hub imports outside of a `try` is a requirement of every model with that code.
try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear as LoraLinear
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
except ModuleNotFoundError as error:
    raise ImportError(f"A model with adapters needs PEFT: pip install peft. ({error})") from error

_MIN_PEFT_VERSION = "0.20.0"


class RoutedLinear(RoutedLayer, LoraLinear):
    """PEFT's LoRA layer, in which each row goes through the adapters of the current [`Route`]."""

    @property
    def active_adapters(self) -> list[str]:
        """The adapters of all rows: those of the route, or else PEFT's."""
        route = current_route()
        return super().active_adapters if route is None else list(route.adapters[0])

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output for rows of any mix of adapters, shape (rows, ..., out)."""
        route = current_route()
        if route is None:
            if self.training and torch.is_grad_enabled():
                # The adapters would get no gradient, silently.
                raise RuntimeError(
                    "In training, a layer with adapters is reached through MultitaskModel.forward alone, which knows "
                    "each row's adapter. With activation checkpointing, use transformers' own "
                    "(`activation_checkpointing`)."
                )
            return self.base_layer(x, *args, **kwargs)
        if idle := [p for p in self.parameters_of(route.idle) if p.requires_grad]:
            # In the layer that the parameters belong to: FSDP reduces a layer's gradients as soon as its backward pass
            # is over.
            x = ZeroGradients.apply(x, *idle)
        if len(route.adapters) == 1:
            return super().forward(x, *args, **kwargs)
        if len(x) != sum(route.sizes):
            raise ValueError(
                f"{sum(route.sizes)} rows of several adapters reach a layer that reads {len(x)}: it cannot have "
                f"adapters. Leave it out of `target_modules`."
            )
        result = self.base_layer(x, *args, **kwargs)
        if not any(name in self.lora_A for group in route.adapters for name in group):
            return result
        down, up = self._of_rows(route)
        x = self._cast_input_dtype(self._dropped_out(x, route), down.dtype)
        # (rows, length, in) · (rows, in, r) · (rows, r, out): every row with its own adapter, in two products.
        low = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), down.transpose(1, 2))
        return result + torch.bmm(low, up.transpose(1, 2)).reshape(result.shape).to(result.dtype)

    def _of_rows(self, route: Route) -> tuple[torch.Tensor, torch.Tensor]:
        """For each row A, shape (rows, r, in), and scaled B, (rows, out, r); zeros for rows without an adapter."""
        downs, ups = [], []
        for group in route.adapters:
            names = [name for name in group if name in self.lora_A]
            downs.append([self.lora_A[name].weight for name in names])
            ups.append([self.lora_B[name].weight * self.scaling[name] for name in names])
        rank = max(sum(len(down) for down in of_group) for of_group in downs)
        like = next(down for of_group in downs for down in of_group)
        down_rows, up_rows = [], []
        for of_down, of_up, size in zip(downs, ups, route.sizes, strict=True):
            down = torch.cat(of_down) if of_down else like.new_zeros(0, self.in_features)
            up = torch.cat(of_up, dim=1) if of_up else like.new_zeros(self.out_features, 0)
            missing = rank - len(down)
            # Copied by expanding, whose gradient is a plain sum: that of an index is not the same twice on a GPU.
            down_rows.append(F.pad(down, (0, 0, 0, missing)).expand(size, -1, -1))
            up_rows.append(F.pad(up, (0, missing)).expand(size, -1, -1))
        return torch.cat(down_rows), torch.cat(up_rows)

    def _dropped_out(self, x: torch.Tensor, route: Route) -> torch.Tensor:
        """The input after the dropout of each row's adapters, which share a mask, and so should have one rate."""
        own = [next((name for name in reversed(group) if name in self.lora_A), None) for group in route.adapters]
        layers = [nn.Identity() if name is None else self.lora_dropout[name] for name in own]
        if not self.training or all(isinstance(layer, nn.Identity) for layer in layers):
            return x
        return torch.cat([layer(part) for layer, part in zip(layers, x.split(route.sizes), strict=True)])


def adapter_options(encoder: nn.Module, adapter_config: LoraConfig) -> dict[str, Any]:
    """The options of a LoRA on an encoder as plain data that mean the same with any version of PEFT.

    Raises:
        ValueError: if one is given that adapters of tasks do not have, or the family has no default.
    """
    given, default = adapter_config.to_dict(), LoraConfig().to_dict()
    for key in sorted(given.keys() - {*ADAPTER_OPTIONS, "task_type", "inference_mode", "base_model_name_or_path"}):
        if given[key] != default[key]:
            raise ValueError(f"Adapters of tasks have the options {', '.join(ADAPTER_OPTIONS)}. Found {key!r}.")
    options = {key: given[key] for key in ADAPTER_OPTIONS}
    targets: Any = adapter_config.target_modules
    family = encoder.config.model_type
    if targets is None:
        targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(family)
        if targets is None:
            names = ", ".join(_last_names(_linear_layers(encoder)))
            raise ValueError(
                f"PEFT has no default `target_modules` for a {family} encoder. Give all-linear, or some of {names}."
            )
    elif isinstance(targets, str) and targets != "all-linear":  # a regular expression
        targets = [name for name in _linear_layers(encoder) if re.fullmatch(targets, name)]
    options["target_modules"] = targets if isinstance(targets, str) else sorted(targets)
    return options


def inject_adapter(encoder: nn.Module, name: str, options: Mapping[str, Any]) -> None:
    """Add a LoRA to an encoder. It starts as no change, and what was trainable before stays so.

    Args:
        encoder: the encoder.
        name: as `peft_adapter_name` makes it.
        options: see `adapter_options`; what else there is, such as the adapter's name, is passed over.

    Raises:
        ValueError: if PEFT is too old, or the options do not fit the encoder's layers.
    """
    check_peft_version(_MIN_PEFT_VERSION)
    layers = _target_layers(encoder, options["target_modules"])
    for layer_name, layer in layers.items():
        smallest = min(layer.in_features, layer.out_features)
        if not 0 < options["r"] <= smallest:
            raise ValueError(
                f"`r` should be between 1 and {smallest}, since {layer_name} is a layer of {layer.in_features} x "
                f"{layer.out_features}. Found {options['r']}. Lower it, or leave the layer out of `target_modules`."
            )
    adapter_config = LoraConfig(**{key: options[key] for key in ADAPTER_OPTIONS} | {"target_modules": list(layers)})
    adapter_config._register_custom_module({nn.Linear: RoutedLinear})
    trainable = {parameter: parameter.requires_grad for parameter in encoder.parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # as there should be
        inject_adapter_in_model(adapter_config, encoder, adapter_name=name)
    for parameter in encoder.parameters():  # PEFT freezes what it finds
        parameter.requires_grad_(trainable.get(parameter, True))


def _linear_layers(encoder: nn.Module) -> dict[str, Any]:
    """The linear layers by their whole name, with or without adapters."""
    inside = tuple(f"{name}." for name in routed_layers(encoder))
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | RoutedLinear) and not name.startswith(inside)
    }


def _last_names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))


def _target_layers(encoder: nn.Module, targets: str | Sequence[str]) -> dict[str, Any]:
    """The linear layers that `target_modules` names, as PEFT reads it, by their whole name."""
    linear = _linear_layers(encoder)
    if targets == "all-linear":
        return linear
    found: set[str] = set()
    for target in targets:
        matching = {name for name in linear if name == target or name.endswith(f".{target}")}
        if not matching:
            names = ", ".join(_last_names(linear))
            raise ValueError(f"`target_modules`: {target} is no linear layer of the encoder. It has {names}.")
        found |= matching
    if not found:
        raise ValueError(f"`target_modules` names no layer. The encoder has {', '.join(_last_names(linear))}.")
    return {name: linear[name] for name in linear if name in found}
