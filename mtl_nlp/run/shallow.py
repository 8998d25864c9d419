"""Encoders with two layers and random weights, which have the form of a recipe's encoder and cost little."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

_LAYERS = 2
_LARGE = 10_000
"""The number of rows from which an embedding gets only the rows that are read: most of the time would go to others."""
_STD = 0.02
_DEPTH = re.compile(r"(num_|n_)?(hidden_|encoder_|decoder_)?layers?")
_TOKEN = re.compile(r"\w*_(token_id|index)")


def shallow_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of an encoder of the same family with at most two layers.

    The families have different names for their numbers of layers, and some list a property of each layer. So every
    number with such a name is lowered, and every list with a member per layer is cut. Where the members of a list add
    up to the number of layers (Funnel's blocks), each member becomes 1.

    Args:
        config: the configuration.

    Raises:
        ValueError: if the family needs all its layers.
    """
    return type(config).from_dict(_shallow(config.to_dict(), _depth(config)))


def _depth(config: PreTrainedConfig) -> int | None:
    try:
        return config.num_hidden_layers
    except AttributeError:  # a family without this name for its number of layers
        return None


def _shallow(values: Mapping[str, Any], depth: int | None) -> dict[str, Any]:
    """Return the values of a configuration with `_LAYERS` of its layers, also in nested configurations."""
    cut: dict[str, Any] = {}
    for key, value in values.items():
        is_per_layer = isinstance(value, list) and depth is not None and depth > _LAYERS
        if isinstance(value, dict) and key.endswith("_config"):
            cut[key] = _shallow(value, value.get("num_hidden_layers"))
        elif isinstance(value, int) and _DEPTH.fullmatch(key):
            cut[key] = min(value, _LAYERS)
        elif is_per_layer and len(value) == depth:
            cut[key] = value[:_LAYERS]
        elif is_per_layer and all(isinstance(each, int) for each in value) and sum(value) == depth:
            cut[key] = [1] * len(value)
        else:
            cut[key] = value
    return cut


@torch.no_grad()
def randomize(model: nn.Module, config: PreTrainedConfig, ids: Sequence[int]) -> None:
    """Give a model without initial weights random ones, in which no weight is zero.

    Matrices get the deviation that keeps the size of their input. All other weights are near 1, and biases near 0. The
    table of a large vocabulary gets only the given rows, since the others are not read.

    Args:
        model: the model, which is changed in place.
        config: the encoder's configuration.
        ids: the ids of the sub-words that the model will read.
    """
    tables = vocabulary_tables(model, config)
    for name, parameter in model.named_parameters():
        if parameter in tables:
            read = torch.tensor(sorted({*ids, *(each for each in special_ids(config) if each < len(parameter))}))
            parameter[read] = torch.randn(len(read), parameter.shape[1]) / math.sqrt(parameter.shape[1])
            parameter.requires_grad_(False)
        elif parameter.ndim > 1:
            parameter.normal_(std=1.0 / math.sqrt(parameter[0].numel()))
        else:
            parameter.normal_(mean=0.0 if "bias" in name else 1.0, std=_STD)


def vocabulary_tables(model: nn.Module, config: PreTrainedConfig) -> set[nn.Parameter]:
    """Return the embeddings of a vocabulary of more than 10,000 entries.

    Args:
        model: the model.
        config: the encoder's configuration.
    """
    size = config.get_text_config().to_dict().get(config.attribute_map.get("vocab_size", "vocab_size"))
    return {
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == size and size > _LARGE
    }


def special_ids(config: PreTrainedConfig) -> set[int]:
    """Return the ids of all special tokens that the configuration of an encoder names."""
    found: set[int] = set()
    for key, value in config.to_dict().items():
        if _TOKEN.fullmatch(key):
            found |= {each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)}
    return {each for each in found if each >= 0}
