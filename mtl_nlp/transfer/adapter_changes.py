"""The changes ΔW of the encoder by the adapters of tasks: their norms by layer, and their similarity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from mtl_nlp.modeling.adapters_multitask import low_rank_factors, peft_adapter_name
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.transfer.encoder_layers import EncoderLayers


class AdapterChanges(NamedTuple):
    """The changes ΔW of the adapters. An adapter's name is a task or `shared`.

    Attributes:
        names: the adapters.
        norms: for each adapter, ‖ΔW‖_F of all its weights outside of the layers, and in each layer.
        similarity: the cosine ⟨ΔW_s, ΔW_t⟩ / (‖ΔW_s‖ ‖ΔW_t‖) of each two adapters over all layers, shape (adapters,
            adapters); None for an adapter that changes nothing.
        similarity_by_layer: the same for the weights outside of the layers, and for each layer.
    """

    names: list[str]
    norms: dict[str, list[float]]
    similarity: list[list[float | None]]
    similarity_by_layer: list[list[list[float | None]]]


@torch.no_grad()
def adapter_changes(model: MultitaskModel, layers: EncoderLayers) -> AdapterChanges:
    """Measure the LoRA adapters of a model.

    ΔW_t = s_t B_t A_t is never built: ⟨ΔW_s, ΔW_t⟩ is the sum of the elementwise product of B_sᵀB_t and A_sA_tᵀ.
    Layers that share their weights (ALBERT) have the same values.

    Args:
        model: the model with LoRA adapters.
        layers: the layers of its encoder.
    """
    names = model.adapter_names
    products = np.zeros((len(layers.modules) + 1, len(names), len(names)))
    for column, name in enumerate(names):
        for row, other in enumerate(names[: column + 1]):
            found = _inner_products(model, name, other)
            for weight, product in found.items():
                place = layers.layer_of(weight)
                products[0 if place is None else place + 1, row, column] += product
    products += np.triu(products, 1).transpose(0, 2, 1)
    total = products.sum(axis=0)
    repeated = [0, *(layers.names.index(name) + 1 for name in layers.names)]
    norms = np.sqrt(np.maximum(np.diagonal(products[repeated], axis1=1, axis2=2), 0))
    return AdapterChanges(
        names,
        {name: norms[:, place].tolist() for place, name in enumerate(names)},
        _cosines(total),
        [_cosines(products[place]) for place in repeated],
    )


def _inner_products(model: MultitaskModel, name: str, other: str) -> dict[str, float]:
    """Return ⟨ΔW_s, ΔW_t⟩ of two adapters for each weight that both change."""
    pairs = [low_rank_factors(model.encoder, [peft_adapter_name(each)]) for each in (name, other)]
    found = {}
    for weight in pairs[0].keys() & pairs[1].keys():
        ((down, up),), ((other_down, other_up),) = pairs[0][weight], pairs[1][weight]
        product = (up.double().T @ other_up.double()) * (down.double() @ other_down.double().T)
        found[weight] = float(product.sum())
    return found


def _cosines(products: np.ndarray) -> list[list[float | None]]:
    """Return the cosines from the inner products of some vectors; None for a vector of zeros."""
    norms = np.sqrt(np.maximum(np.diagonal(products), 0))
    return [
        [
            float(product / (norms[row] * norms[column])) if norms[row] and norms[column] else None
            for column, product in enumerate(of_row)
        ]
        for row, of_row in enumerate(products)
    ]
