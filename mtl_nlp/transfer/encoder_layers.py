"""The layers of an encoder of any family, found by the order in which the encoder calls its modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtl_nlp.modeling.adapters_multitask import RoutedLayer
from mtl_nlp.modeling.encoders_multitask import encoder_arguments, encoder_inputs


@dataclass(frozen=True)
class EncoderLayers:
    """The layers of an encoder in the order of their calls.

    Attributes:
        modules: the module of each layer. An encoder with shared layers (ALBERT) calls a module several times.
        names: the name of each layer's module in the encoder.
        projections: the linear layer of each layer that reads the concatenated attention heads; None if it is unknown.
        heads: the number of attention heads per layer.
    """

    modules: list[nn.Module]
    names: list[str]
    projections: list[Any] | None
    heads: int

    @property
    def labels(self) -> list[str]:
        """The names of the layers for readers, `layer 0` to `layer L-1`."""
        return layer_labels(len(self.modules))

    def layer_of(self, name: str) -> int | None:
        """Return the first layer that has a weight or module, or None for a part outside of the layers."""
        return next((place for place, layer in enumerate(self.names) if name.startswith(f"{layer}.")), None)


def layer_labels(count: int) -> list[str]:
    """Return the names of layers for readers."""
    return [f"layer {place}" for place in range(count)]


@torch.no_grad()
def find_layers(encoder: Any, inputs: Mapping[str, torch.Tensor]) -> EncoderLayers | None:
    """Find the layers of an encoder with one forward pass.

    The layers are the children of the outermost `ModuleList` that the encoder calls `num_hidden_layers` times. The
    projection is the last linear layer that the only attention module of a layer calls.

    Args:
        encoder: the encoder, in evaluation mode.
        inputs: any input of the encoder, such as one row of a batch.

    Returns:
        The layers, or None for an encoder whose structure is not known.
    """
    lists = [(name, module) for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
    children = {child: f"{name}.{key}" for name, module in lists for key, child in module.named_children()}
    linear = {module for module in encoder.modules() if isinstance(module, nn.Linear | RoutedLayer)}
    calls: list[nn.Module] = []
    with _calls_recorded({*children, *linear}, calls):
        encoder(**encoder_inputs(encoder_arguments(encoder), inputs))
    try:
        count, heads = encoder.config.num_hidden_layers, encoder.config.num_attention_heads
    except AttributeError:  # a family that has other names for these numbers
        return None
    for _, module in lists:
        own = set(module.children())
        found = [call for call in calls if call in own]
        if len(found) == count:
            order = [call for call in calls if call in linear]
            return EncoderLayers(found, [children[each] for each in found], _projections(found, order, heads), heads)
    return None


def _projections(layers: Sequence[nn.Module], calls: Sequence[nn.Module], heads: int) -> list[Any] | None:
    """Return the projection of each layer, or None if one of them is unknown."""
    found: list[Any] = []
    for layer in layers:
        attention = _attention_of(layer)
        inside = set() if attention is None else set(attention.modules())
        last = next((call for call in reversed(calls) if call in inside), None)
        if not isinstance(last, nn.Linear | RoutedLayer) or _inputs_of(last) % heads:
            return None
        found.append(last)
    return found


def _attention_of(layer: nn.Module) -> nn.Module | None:
    """Return the only outermost attention module of a layer, or None if there are none or several."""
    found: dict[str, nn.Module] = {}
    for name, module in layer.named_modules():
        own = name.rsplit(".", 1)[-1]
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        has_linear = any(isinstance(part, nn.Linear | RoutedLayer) for part in module.modules())
        if ("attention" in own or "attn" in own) and has_linear and not is_inside:
            found[name] = module
    return next(iter(found.values())) if len(found) == 1 else None


def _inputs_of(linear: Any) -> int:
    return linear.in_features


@contextlib.contextmanager
def _calls_recorded(modules: set[nn.Module], calls: list[nn.Module]) -> Iterator[None]:
    """Append each module to a list when its call ends, inside this context."""
    handles = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
