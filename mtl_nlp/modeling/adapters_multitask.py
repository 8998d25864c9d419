"""Adapters: a LoRA (Hu et al. 2022) for each task on one encoder, and rows of several tasks in one pass.

The layers are PEFT's, injected and merged by PEFT, and their weights have PEFT's names. Added is the way through them:
PEFT refuses `adapter_names` in training, so that rows of several adapters would need a pass each.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.utils.peft_utils import check_peft_version

SHARED = "shared"
"""The name of the adapter that all tasks go through."""

_MIN_PEFT_VERSION = "0.20.0"
_OPTIONS = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
_NOT_ROWS = {"deberta", "deberta-v2"}
"""Families that put something else than rows, relative positions, through the layers that rows go through."""


@dataclass(frozen=True)
class Route:
    """Which adapters the rows of an encoder pass go through.

    Attributes:
        adapters: for each group of neighbouring rows the adapters it goes through, all of them added up.
        sizes: how many rows each group has.
        idle: adapters that none of the rows goes through, and that get a gradient of zero.
    """

    adapters: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    idle: tuple[str, ...] = ()


_ROUTE: ContextVar[Route | None] = ContextVar("route", default=None)


@contextlib.contextmanager
def routed(route: Route) -> Iterator[None]:
    """Inside, rows go this way. Threads, each with its own way, may share an encoder."""
    token = _ROUTE.set(route)
    try:
        yield
    finally:
        _ROUTE.reset(token)


def checkpointing_routed(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Activation checkpointing whose second forward, in backward, goes the way of the first."""

    def again(route: Route, forward: Callable[..., Any], *inputs: Any) -> Any:
        with routed(route):
            return forward(*inputs)

    @functools.wraps(checkpoint)
    def checkpointing(forward: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Any:
        route = _ROUTE.get()
        return checkpoint(forward if route is None else functools.partial(again, route, forward), *inputs, **kwargs)

    return checkpointing


class _Touch(torch.autograd.Function):
    """Its first input, with a gradient of zero for all others.

    In the layer that they belong to, since FSDP reduces a layer's gradients as soon as its backward pass is over.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *touched: torch.Tensor) -> torch.Tensor:
        # Not the tensors: FSDP frees parameters between forward and backward.
        ctx.likes = [(value.shape, value.dtype, value.device) for value in touched]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gradient, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.likes)


class RoutedLinear(LoraLinear):
    """PEFT's LoRA layer, in which each row goes through the adapters of the current [`Route`]."""

    @property
    def active_adapters(self) -> list[str]:
        """The adapters of all rows: those of the route, or else PEFT's."""
        route = _ROUTE.get()
        return super().active_adapters if route is None else list(route.adapters[0])

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output for rows of any mix of adapters, shape (rows, ..., out)."""
        route = _ROUTE.get()
        if route is not None and (idle := [p for p in self._parameters_of(route.idle) if p.requires_grad]):
            x = _Touch.apply(x, *idle)
        if route is None or len(route.adapters) == 1:
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

    def _parameters_of(self, names: Iterable[str] | None) -> list[nn.Parameter]:
        """The parameters of some adapters, or of all."""
        wanted = None if names is None else set(names)
        return [
            parameter
            for key, parameter in (() if wanted == set() else self.named_parameters())
            if key.startswith("lora_") and (wanted is None or key.split(".")[1] in wanted)
        ]

    def _dropped_out(self, x: torch.Tensor, route: Route) -> torch.Tensor:
        """The input after the dropout of each row's own adapter."""
        own = [next((name for name in reversed(group) if name in self.lora_A), None) for group in route.adapters]
        layers = [nn.Identity() if name is None else self.lora_dropout[name] for name in own]
        if not self.training or all(isinstance(layer, nn.Identity) for layer in layers):
            return x
        return torch.cat([layer(part) for layer, part in zip(layers, x.split(route.sizes), strict=True)])


def internal_name(name: str) -> str:
    """The name that PEFT's layers know an adapter by: task names such as `a.b` or `type` cannot be a module's."""
    return name if name == SHARED else "task_" + name.replace("%", "%25").replace(".", "%2E")


def mixes_rows(text_config: Any, adapters: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one encoder pass can hold rows of several adapters; else each adapter's rows take a pass of their own.

    DoRA (Liu et al. 2024) divides by the norm of the whole changed weight, of which there is one for each adapter.
    """
    return text_config.model_type not in _NOT_ROWS and not any(options.get("use_dora") for options in adapters)


def adapter_options(adapter_config: LoraConfig) -> dict[str, Any]:
    """The options of a LoRA as plain data, those that are not PEFT's defaults.

    Raises:
        ValueError: if one is given that adapters of tasks do not have.
    """
    given, default = adapter_config.to_dict(), LoraConfig().to_dict()
    changed = {key: value for key, value in given.items() if value != default[key]}
    for key in changed.keys() - {*_OPTIONS, "task_type", "inference_mode", "base_model_name_or_path"}:
        raise ValueError(f"Adapters of a multitask model have the options {', '.join(_OPTIONS)}. Found {key!r}.")
    options = {key: changed[key] for key in _OPTIONS if key in changed}
    if isinstance(options.get("target_modules"), set):
        options["target_modules"] = sorted(options["target_modules"])
    return options


def inject_adapter(encoder: nn.Module, name: str, options: Mapping[str, Any]) -> None:
    """Add a LoRA to an encoder. It starts as no change, and what was trainable before stays so.

    Args:
        encoder: the encoder.
        name: as `internal_name` makes it.
        options: options of `LoraConfig`, see `adapter_options`.

    Raises:
        ValueError: if PEFT is too old, or the options do not fit the encoder's layers.
    """
    check_peft_version(_MIN_PEFT_VERSION)
    if unknown := options.keys() - set(_OPTIONS):
        raise ValueError(f"Adapters of a multitask model have the options {', '.join(_OPTIONS)}. Found {unknown}.")
    adapter_config = LoraConfig(**options)
    layers = _target_layers(encoder, adapter_config.target_modules)
    for layer_name, layer in layers.items():
        smallest = min(layer.in_features, layer.out_features)
        if not 0 < adapter_config.r <= smallest:
            raise ValueError(
                f"`r` should be between 1 and {smallest}, since {layer_name} is a layer of {layer.in_features} x "
                f"{layer.out_features}. Found {adapter_config.r}."
            )
    adapter_config.target_modules = list(layers)
    adapter_config._register_custom_module({nn.Linear: RoutedLinear})
    trainable = {parameter: parameter.requires_grad for parameter in encoder.parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # as there should be
        inject_adapter_in_model(adapter_config, encoder, adapter_name=name)
    for parameter in encoder.parameters():  # PEFT freezes what it finds
        parameter.requires_grad_(trainable.get(parameter, True))


def delete_adapter(encoder: nn.Module, name: str) -> None:
    """Take an adapter out of an encoder, and PEFT's layers where none is left."""
    for layer_name, layer in list(_routed_layers(encoder).items()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active")  # the route says which are
            layer.delete_adapter(name)
        if not layer.lora_A:
            encoder.set_submodule(layer_name, layer.get_base_layer())
    encoder.peft_config.pop(name)


def adapter_parameters(encoder: nn.Module, names: Iterable[str] | None = None) -> list[nn.Parameter]:
    """The parameters of some adapters, or of all, in the order of the layers."""
    wanted = None if names is None else set(names)
    return [parameter for layer in _routed_layers(encoder).values() for parameter in layer._parameters_of(wanted)]


def low_rank_factors(encoder: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """For each layer that has one of some adapters, A, shape (r, in), and scaled B, (out, r), of each in order."""
    names = list(names)
    return {
        layer_name: [
            (_gathered(layer.lora_A[name].weight), _gathered(layer.lora_B[name].weight) * layer.scaling[name])
            for name in names
            if name in layer.lora_A
        ]
        for layer_name, layer in _routed_layers(encoder).items()
    }


def merged_state(encoder: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The encoder's weights with some adapters merged in by PEFT, under the plain encoder's names."""
    names = list(names)
    state = {
        key.replace(".base_layer.", "."): tensor for key, tensor in encoder.state_dict().items() if ".lora_" not in key
    }
    for layer_name, layer in _routed_layers(encoder).items():
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


def _routed_layers(encoder: nn.Module) -> dict[str, RoutedLinear]:
    return {name: module for name, module in encoder.named_modules() if isinstance(module, RoutedLinear)}


def _target_layers(encoder: nn.Module, targets: Any) -> dict[str, Any]:
    """The linear layers that `target_modules` names, as PEFT reads it, by their whole name."""
    adapted = tuple(f"{name}." for name in _routed_layers(encoder))
    linear = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | RoutedLinear) and not name.startswith(adapted)
    }
    names = ", ".join(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    if targets is None:
        family = encoder.config.model_type
        targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(family)
        if targets is None:
            raise ValueError(
                f"PEFT has no default `target_modules` for a {family} encoder. Give all-linear, or some of {names}."
            )
    if targets == "all-linear":
        return linear
    found: dict[str, Any] = {}
    for target in [targets] if isinstance(targets, str) else sorted(targets):
        if isinstance(targets, str):
            matching = [name for name in linear if re.fullmatch(target, name)]
        else:
            matching = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not matching:
            raise ValueError(f"`target_modules`: {target} is no linear layer of the encoder. It has {names}.")
        found |= {name: linear[name] for name in matching}
    return {name: linear[name] for name in linear if name in found}


@dataclass(frozen=True)
class EncoderPass:
    """One pass through the encoder.

    Attributes:
        route: which adapters its rows go through.
        rows: the batch's rows that it reads, shape (rows,), a row once for each adapter; None for the batch as it is.
        places: for each task where in the pass its rows are, shape (n_t,); None for the whole pass.
    """

    route: Route
    rows: torch.Tensor | None
    places: dict[str, torch.Tensor | None]


def encoder_passes(
    adapters: Mapping[str, tuple[str, ...]], rows: Mapping[str, torch.Tensor] | None, *, in_one: bool
) -> list[EncoderPass]:
    """The encoder passes that a batch needs for some tasks.

    Tasks that go through the same adapters share what is read for them. A row that is labelled for tasks of other
    adapters is read once for each of those, and for no other.

    Args:
        adapters: for each task the adapters it goes through.
        rows: for each task the rows of the batch that it labels, shape (n_t,); None for all.
        in_one: whether one pass can hold rows of several adapters, see `mixes_rows`. It is not used for all rows, of
            which each pass then holds a batch, and not several.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, of_task in adapters.items():
        if rows is None or len(rows[name]):
            groups.setdefault(of_task, []).append(name)
    if rows is None:
        return [EncoderPass(Route((group,), ()), None, dict.fromkeys(names)) for group, names in groups.items()]
    if len(groups) < 2:  # the batch as it is, also if no row has a label: the loss of zero needs an encoder pass
        group = next(iter(groups), ())
        return [EncoderPass(Route((group,), ()), None, {name: rows[name] for name in groups.get(group, [])})]
    reads = []
    for group, names in groups.items():
        parts = [rows[name] for name in names]
        if len(parts) == 1:
            reads.append((group, parts[0], [torch.arange(len(parts[0]), device=parts[0].device)]))
        else:
            of_group = torch.cat(parts).unique()
            reads.append((group, of_group, [torch.searchsorted(of_group, part) for part in parts]))
    if not in_one:
        return [
            EncoderPass(Route((group,), ()), read, dict(zip(groups[group], places, strict=True)))
            for group, read, places in reads
        ]
    sizes = [len(read) for _, read, _ in reads]
    starts = itertools.accumulate(sizes, initial=0)
    joined = {
        name: start + place
        for (group, _, places), start in zip(reads, starts, strict=False)
        for name, place in zip(groups[group], places, strict=True)
    }
    route = Route(tuple(groups), tuple(sizes))
    return [EncoderPass(route, torch.cat([read for _, read, _ in reads]), joined)]


def touching(passes: Sequence[EncoderPass], names: Iterable[str]) -> list[EncoderPass]:
    """The same passes, of which the first gives those of some adapters that no row goes through a gradient of zero."""
    used = {name for each in passes for group in each.route.adapters for name in group}
    idle = tuple(name for name in names if name not in used)
    return [replace(passes[0], route=replace(passes[0].route, idle=idle)), *passes[1:]]
