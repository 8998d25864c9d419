"""The layers of the encoders of all families."""

from __future__ import annotations

import pytest
import torch
from inspected_models import inputs, layers_of, model_of
from toys import FAMILIES, SHAPE

from mtl_nlp.transfer.encoder_layers import find_layers

PROJECTIONS = {
    "distilbert": "attention.out_lin",
    "albert": "attention.dense",
    "mpnet": "attention.attn.o",
    "modernbert": "attn.Wo",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_and_their_projections_are_found(family):
    model = model_of(family)
    layers = layers_of(model)
    assert layers.labels == ["layer 0", "layer 1"]
    assert layers.heads == SHAPE["num_attention_heads"]
    assert len(set(layers.modules)) == (1 if family == "albert" else 2)
    names = {module: name for name, module in model.encoder.named_modules()}
    assert layers.names == [names[module] for module in layers.modules]
    wanted = PROJECTIONS.get(family, "attention.output.dense")
    assert [names[projection].endswith(wanted) for projection in layers.projections] == [True, True]
    assert layers.layer_of(f"{layers.names[-1]}.x.weight") == layers.names.index(layers.names[-1])
    assert layers.layer_of("embeddings.word_embeddings.weight") is None


def test_the_projection_of_a_layer_with_adapters_is_the_layer_with_the_adapter():
    from adapted_models import adapted

    model = adapted()
    layers = find_layers(model.encoder, inputs(rows=2))
    assert all(projection in model.encoder.modules() for projection in layers.projections)
    assert {type(projection).__name__ for projection in layers.projections} == {"RoutedLinear"}


class _Unknown(torch.nn.Module):
    """An encoder with layers that have no attention, or without layers."""

    def __init__(self, layers: int, named: int) -> None:
        super().__init__()
        self.layer = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(layers)])
        self.config = torch.nn.Module()
        self.config.num_hidden_layers, self.config.num_attention_heads = named, 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


def test_an_encoder_with_an_unknown_structure_has_no_layers_or_no_projections():
    x = {"x": torch.ones(1, 4)}
    found = find_layers(_Unknown(2, 2), x)
    assert (found.names, found.projections) == (["layer.0", "layer.1"], None)
    assert find_layers(_Unknown(2, 3), x) is None
    nameless = _Unknown(2, 2)
    del nameless.config.num_hidden_layers
    assert find_layers(nameless, x) is None
