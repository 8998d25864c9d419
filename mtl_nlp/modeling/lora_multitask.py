"""LoRA layers (Hu et al. 2022) that apply different adapters to different rows of a batch.

The layers extend PEFT's. PEFT accepts `adapter_names` per row only for inference, so that training would need a
separate pass per adapter. This module needs PEFT, and only models with adapters import it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.utils.peft_utils import check_peft_version

from .adapters_multitask import RoutedLayer, routed_layers
from .configuration_multitask import ADAPTER_OPTIONS
from .encoders_multitask import UNREAD
from .loss_multitask import ZeroGradients
from .routing_multitask import Route, current_route

# Transformers requires every package that Hub code imports outside of a `try`, also for models without adapters.
try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear as LoraLinear
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
except ModuleNotFoundError as error:
    raise ImportError(f"A model with adapters needs PEFT: pip install peft. ({error})") from error

_MIN_PEFT_VERSION = "0.20.0"


class RoutedLinear(RoutedLayer, LoraLinear):
    """A PEFT LoRA layer that applies to each row its adapters in the current [`Route`]."""

    @property
    def active_adapters(self) -> list[str]:
        """The adapters of the route's first group of rows; PEFT's active adapters outside of a route."""
        route = current_route()
        return super().active_adapters if route is None else list(route.adapters[0])

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the layer's output for rows with any mix of adapters.

        Args:
            x: shape (rows, ..., in).
            *args: positional arguments of the plain layer.
            **kwargs: keyword arguments of the plain layer.

        Returns:
            Shape (rows, ..., out). Outside of a route, the output of the plain layer.

        Raises:
            RuntimeError: if the layer is called in training outside of a route.
            ValueError: if `x` does not have one entry per row of the route.
        """
        route = current_route()
        if route is None:
            if self.training and torch.is_grad_enabled():
                # Without an error, the adapters would get no gradient.
                raise RuntimeError(
                    "In training, a layer with adapters should be called only through MultitaskModel.forward, which "
                    "chooses the adapters of each row. Found a call from elsewhere. Call the model instead of its "
                    "encoder, and use only the activation checkpointing of transformers (`activation_checkpointing`)."
                )
            return self.base_layer(x, *args, **kwargs)
        if idle := [p for p in self.parameters_of(route.idle) if p.requires_grad]:
            # The zero gradients must come from the parameters' own layer, since FSDP reduces a layer's gradients
            # directly after the layer's backward pass.
            x = ZeroGradients.apply(x, *idle)
        if len(route.adapters) == 1:
            return super().forward(x, *args, **kwargs)
        if len(x) != sum(route.sizes):
            raise ValueError(
                f"A layer with adapters should read one input per row. Found {len(x)} inputs for {sum(route.sizes)} "
                f"rows of several adapters. Leave the layer out of `target_modules`."
            )
        result = self.base_layer(x, *args, **kwargs)
        if not any(name in self.lora_A for group in route.adapters for name in group):
            return result
        down, up = self._row_factors(route)
        x = self._cast_input_dtype(self._apply_dropout(x, route), down.dtype)
        # (rows, length, in) · (rows, in, r) · (rows, r, out): two products for the adapters of all rows.
        low = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), down.transpose(1, 2))
        return result + torch.bmm(low, up.transpose(1, 2)).reshape(result.shape).to(result.dtype)

    def _row_factors(self, route: Route) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the low-rank factors of each row.

        The factors of several adapters are concatenated. Rows with a lower rank than others are padded with zeros.

        Returns:
            A, shape (rows, r, in), and B times the scaling, shape (rows, out, r).
        """
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
            # The gradient of `expand` is a sum; the gradient of indexing would not be deterministic on a GPU.
            down_rows.append(F.pad(down, (0, 0, 0, missing)).expand(size, -1, -1))
            up_rows.append(F.pad(up, (0, missing)).expand(size, -1, -1))
        return torch.cat(down_rows), torch.cat(up_rows)

    def _apply_dropout(self, x: torch.Tensor, route: Route) -> torch.Tensor:
        """Apply each row's adapter dropout to the input.

        All adapters of a row share one dropout mask, and therefore need the same rate.
        """
        own = [next((name for name in reversed(group) if name in self.lora_A), None) for group in route.adapters]
        layers = [nn.Identity() if name is None else self.lora_dropout[name] for name in own]
        if not self.training or all(isinstance(layer, nn.Identity) for layer in layers):
            return x
        return torch.cat([layer(part) for layer, part in zip(layers, x.split(route.sizes), strict=True)])


def adapter_options(encoder: nn.Module, adapter_config: LoraConfig) -> dict[str, Any]:
    """Return the options of an adapter as plain data, independent of the version of PEFT.

    PEFT's default `target_modules` of the family, and the layers that match a regular expression, are stored by name.

    Raises:
        ValueError: if an option is not supported, PEFT has no default `target_modules` for the family, or the encoder
            has no linear layers.
    """
    given, default = adapter_config.to_dict(), LoraConfig().to_dict()
    for key in sorted(given.keys() - {*ADAPTER_OPTIONS, "task_type", "inference_mode", "base_model_name_or_path"}):
        if given[key] != default[key]:
            raise ValueError(
                f"Adapters of a multitask model support only the options {', '.join(ADAPTER_OPTIONS)}. Found {key!r}. "
                f"Leave it at its default."
            )
    options = {key: given[key] for key in ADAPTER_OPTIONS}
    targets: Any = adapter_config.target_modules
    family = encoder.config.model_type
    if not _linear_layers(encoder):  # SqueezeBERT has convolutions
        raise ValueError(
            f"a {family} encoder has no linear layers, which adapters change. Leave out `adapters`, or choose an "
            f"encoder of a different family."
        )
    if targets is None:
        targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(family)
        if targets is None:
            names = ", ".join(_last_names(_linear_layers(encoder)))
            raise ValueError(
                f"PEFT has no default `target_modules` for a {family} encoder. Give all-linear, or some of the linear "
                f"layers {names}."
            )
    elif isinstance(targets, str) and targets != "all-linear":  # a regular expression
        targets = [name for name in _linear_layers(encoder) if re.fullmatch(targets, name)]
    _check_targets(_linear_layers(encoder), targets)
    options["target_modules"] = targets if isinstance(targets, str) else sorted(targets)
    return options


def inject_adapter(encoder: nn.Module, name: str, options: Mapping[str, Any]) -> None:
    """Add an adapter to an encoder.

    The new adapter does not change the encoder's outputs, and existing parameters stay trainable or frozen.

    Args:
        encoder: the encoder.
        name: the adapter's name from `peft_adapter_name`.
        options: the options from `adapter_options`. Other keys, such as the adapter's name, are ignored.

    Raises:
        ValueError: if PEFT is too old, or the options do not fit the encoder's layers.
    """
    check_peft_version(_MIN_PEFT_VERSION)
    layers = _target_layers(encoder, options["target_modules"])
    for layer_name, layer in layers.items():
        inputs, outputs = (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)
        smallest = min(inputs, outputs)
        if not 0 < options["r"] <= smallest:
            raise ValueError(
                f"`r` should be between 1 and {smallest}, since {layer_name} has {inputs} inputs and {outputs} "
                f"outputs. Found {options['r']}. Lower `r`, or leave the layer out of "
                f"`target_modules`."
            )
    adapter_config = LoraConfig(**{key: options[key] for key in ADAPTER_OPTIONS} | {"target_modules": list(layers)})
    adapter_config._register_custom_module({nn.Linear: RoutedLinear, Conv1D: RoutedLinear})
    # GPT-2's linear layers, whose weights are transposed. No family of transformers has both kinds.
    adapter_config.fan_in_fan_out = any(isinstance(_plain_layer(layer), Conv1D) for layer in layers.values())
    trainable = {parameter: parameter.requires_grad for parameter in encoder.parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # expected after the first adapter
        inject_adapter_in_model(adapter_config, encoder, adapter_name=name)
    for parameter in encoder.parameters():  # PEFT freezes the existing parameters
        parameter.requires_grad_(trainable.get(parameter, True))


def _linear_layers(encoder: nn.Module) -> dict[str, Any]:
    """Return the linear layers, with and without adapters, by full name; not those that no head reads."""
    inside = tuple(f"{name}." for name in routed_layers(encoder))
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | Conv1D | RoutedLinear)
        and not name.startswith(inside)
        and any(True for _ in module.parameters())
    }


def _plain_layer(layer: Any) -> nn.Module:
    return layer.get_base_layer() if isinstance(layer, RoutedLinear) else layer


def _last_names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))


def _target_layers(encoder: nn.Module, targets: str | Sequence[str]) -> dict[str, Any]:
    """Return the linear layers that `target_modules` selects by PEFT's rules, by full name.

    Adapters of earlier releases may also name layers that no head reads, which are left out.

    Raises:
        ValueError: if a target selects no layer, or no target is given.
    """
    linear = _linear_layers(encoder)
    if targets == "all-linear":
        return linear
    _check_targets(linear, targets, [name for name, _ in encoder.named_modules() if UNREAD.fullmatch(name)])
    return {name: layer for name, layer in linear.items() if any(_is_target(name, target) for target in targets)}


def _check_targets(linear: Iterable[str], targets: str | Sequence[str], unread: Iterable[str] = ()) -> None:
    """Check that each of some targets selects a linear layer or an unread layer, and that there are targets."""
    names = [*linear, *unread]
    missing = [target for target in targets if not any(_is_target(name, target) for name in names)]
    if targets != "all-linear" and (missing or not targets):
        shown, found = ", ".join(_last_names(linear)), repr(missing[0]) if missing else "none"
        raise ValueError(f"`target_modules` should name linear layers of the encoder ({shown}). Found {found}.")


def _is_target(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
