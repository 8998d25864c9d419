"""The parts of an encoder by depth, found from its structure: the embeddings, the layers, and the rest."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from .adapters_multitask import adapter_parameters

EMBEDDINGS = "embeddings"
"""The name of the part of an encoder that has its embeddings."""

_LAYERS = re.compile(r"layers (\d+)(?:-(\d+))?")


def is_encoder_part(part: str) -> bool:
    """Return whether a text names the embeddings or layers of an encoder, such as `layers 0-3` or `layers 5`."""
    return part == EMBEDDINGS or _LAYERS.fullmatch(part) is not None


def layers_of(encoder: Any) -> list[nn.Module]:
    """Return the layers of an encoder in their order, of an encoder with or without adapters, on any device.

    The layers are the members of the only outermost `ModuleList` with `num_hidden_layers` members.

    Args:
        encoder: the encoder.

    Raises:
        ValueError: if the encoder has no such list or several, as the families that share layers (ALBERT) or group
            layers (Funnel).
    """
    number = _number_of_layers(encoder.config)
    found = [] if number is None else _outermost_lists(encoder, number)
    if len(found) != 1:
        raise ValueError(
            f"The layers of the {encoder.config.model_type} encoder are shared or grouped, so that they cannot be "
            f"chosen one by one."
        )
    return list(found[0])


def layers_or_groups(encoder: Any) -> list[nn.Module]:
    """Return the layers of an encoder, or the groups of layers of an encoder whose layers are shared or grouped.

    The groups are the members of the outermost `ModuleList` with the most parameters: those of ALBERT have one set of
    weights for several layers, and those of Funnel are its blocks. The result is empty without such a list.

    Args:
        encoder: the encoder.
    """
    try:
        return layers_of(encoder)
    except ValueError:
        return list(max(_outermost_lists(encoder), key=lambda each: len(list(each.parameters())), default=()))


def _outermost_lists(encoder: Any, length: int | None = None) -> list[nn.ModuleList]:
    """Return the lists of modules of some length, or of any, that are in no other such list."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in encoder.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and not is_inside and length in {None, len(module)}:
            found[name] = module
    return list(found.values())


def _number_of_layers(config: Any) -> int | None:
    try:
        return config.num_hidden_layers
    except AttributeError:  # a family that has a different name for this number
        return None


def parameters_by_depth(encoder: Any) -> list[list[nn.Parameter]]:
    """Return the parameters of an encoder's embeddings, of each of its L layers, and of the rest: L + 2 lists.

    The embeddings are all weights that the encoder's class defines before its layers, and all embedding tables. The
    rest is behind or beside the layers, such as a last normalisation. The adapters are in none of the lists.

    Args:
        encoder: the encoder.

    Raises:
        ValueError: if the layers of the encoder are unknown, see [`layers_of`].
    """
    adapters = set(adapter_parameters(encoder))
    layers = [[p for p in layer.parameters() if p not in adapters] for layer in layers_of(encoder)]
    inside = {parameter for layer in layers for parameter in layer}
    tables = {p for module in encoder.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    embeddings: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    is_before = True
    for parameter in encoder.parameters():
        is_before = is_before and parameter not in inside
        if parameter not in inside | adapters:
            (embeddings if is_before or parameter in tables else rest).append(parameter)
    return [embeddings, *layers, rest]


def encoder_part(encoder: Any, part: str) -> list[nn.Parameter]:
    """Return the parameters of the embeddings or of some layers of an encoder, without adapters.

    Args:
        encoder: the encoder.
        part: `embeddings`, `layers A-B` or `layers N`; the first layer has the number 0, and `A-B` includes B.

    Raises:
        ValueError: if the encoder does not have these layers, or its layers are unknown.
    """
    embeddings, *layers, _ = parameters_by_depth(encoder)
    match = _LAYERS.fullmatch(part)
    if match is None:
        return embeddings
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last < len(layers):
        raise ValueError(f"The encoder has the layers 0-{len(layers) - 1}, the lowest first. Found {part!r}.")
    return [parameter for layer in layers[first : last + 1] for parameter in layer]
