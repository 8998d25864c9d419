"""The changes of adapters against the dense products."""

from __future__ import annotations

import math

import pytest
import torch
from adapted_models import adapted, lora
from inspected_models import inputs, model_of
from toys import liven_adapters

from mtl_nlp.modeling.adapters_multitask import peft_adapter_name, routed_layers
from mtl_nlp.transfer.adapter_changes import adapter_changes
from mtl_nlp.transfer.encoder_layers import find_layers

NAMES = ["pos", "ner", "shared"]


def dense(model: torch.nn.Module, name: str, prefix: str) -> torch.Tensor:
    """Return all ΔW of an adapter in a part of the encoder as one vector."""
    own = peft_adapter_name(name)
    return torch.cat(
        [
            layer.get_delta_weight(own).detach().flatten()
            for key, layer in routed_layers(model.encoder).items()
            if key.startswith(prefix)
        ]
    )


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_norms_and_cosines_are_those_of_the_dense_changes(family):
    model = adapted(family, NAMES)
    layers = find_layers(model.encoder, inputs(rows=2))
    found = adapter_changes(model, layers)
    assert found.names == NAMES
    for place, layer in enumerate(layers.names, start=1):
        changes = [dense(model, name, layer) for name in NAMES]
        for row, name in enumerate(NAMES):
            assert found.norms[name][place] == pytest.approx(float(changes[row].norm()), rel=1e-5)
            for column in range(len(NAMES)):
                cosine = float(torch.nn.functional.cosine_similarity(changes[row], changes[column], dim=0))
                assert found.similarity_by_layer[place][row][column] == pytest.approx(cosine, abs=1e-5)
    changes = [dense(model, name, "") for name in NAMES]
    cosine = float(torch.nn.functional.cosine_similarity(changes[0], changes[1], dim=0))
    assert found.similarity[0][1] == pytest.approx(cosine, abs=1e-5)
    assert found.similarity[1][0] == found.similarity[0][1]
    if family == "bert":
        assert found.norms["pos"][0] == 0.0  # no adapter outside of the layers
        assert found.similarity_by_layer[0][0][1] is None


def test_new_adapters_have_no_similarity_and_equal_ones_have_one():
    model = model_of()
    for name in ("pos", "ner"):
        model.add_adapter(lora(), name)
    layers = find_layers(model.encoder, inputs(rows=2))
    assert adapter_changes(model, layers).similarity == [[None, None], [None, None]]
    liven_adapters(model)
    for layer in routed_layers(model.encoder).values():
        for kind in (layer.lora_A, layer.lora_B):
            kind["task_ner"].load_state_dict(kind["task_pos"].state_dict())
    assert math.isclose(adapter_changes(model, layers).similarity[0][1], 1.0)
