"""The embeddings and layers of the encoders of all families, found without a forward pass."""

from __future__ import annotations

import pytest
from adapted_models import adapted
from torch import nn
from toys import FAMILIES, build_model

from mtl_nlp import TokenClassification
from mtl_nlp.modeling.adapters_multitask import adapter_parameters
from mtl_nlp.modeling.layers_multitask import (
    encoder_part,
    is_encoder_part,
    layers_of,
    layers_or_groups,
    parameters_by_depth,
)

POS = TokenClassification(name="pos", labels=["a", "b"])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_every_weight_of_an_encoder_is_in_its_embeddings_a_layer_or_the_rest(family):
    encoder = build_model([POS], family).encoder
    embeddings, *layers, rest = parameters_by_depth(encoder)
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    assert len(layers) == len(layers_of(encoder)) == 2
    assert sorted(names[p] for part in (embeddings, *layers, rest) for p in part) == sorted(names.values())
    assert any("word_embeddings" in names[p] or "tok_embeddings" in names[p] for p in embeddings)
    for number, layer in enumerate(layers):
        assert layer and all(f".{number}." in f".{names[p]}" for p in layer)
    assert {names[p] for p in rest} == ({"final_norm.weight"} if family == "modernbert" else set())
    assert (family != "deberta-v2") or "encoder.rel_embeddings.weight" in {names[p] for p in embeddings}
    assert encoder_part(encoder, "embeddings") == embeddings
    assert encoder_part(encoder, "layers 0-1") == [*layers[0], *layers[1]]
    assert encoder_part(encoder, "layers 1") == layers[1]


def test_shared_and_grouped_layers_have_groups():
    albert = build_model([POS], "albert").encoder
    assert layers_or_groups(albert) == list(albert.encoder.albert_layer_groups)
    bert = build_model([POS]).encoder
    assert layers_or_groups(bert) == layers_of(bert)
    bert.encoder.layer = nn.Sequential(*bert.encoder.layer)
    assert layers_or_groups(bert) == []


def test_adapters_are_in_no_part():
    model = adapted(adapters=("shared", "pos"))
    found = {parameter for part in parameters_by_depth(model.encoder) for parameter in part}
    assert found == set(model.encoder.parameters()) - set(adapter_parameters(model.encoder))


def test_shared_layers_and_layers_that_do_not_exist_are_refused_in_one_line():
    albert, bert = (build_model([POS], family).encoder for family in ("albert", "bert"))
    with pytest.raises(ValueError, match=r"^The layers of the albert encoder are shared or grouped, so that they"):
        encoder_part(albert, "embeddings")
    for part in ("layers 0-2", "layers 2", "layers 1-0"):
        with pytest.raises(ValueError, match=rf"^The encoder has the layers 0-1, the lowest first\. Found '{part}'\.$"):
            encoder_part(bert, part)


@pytest.mark.parametrize("part", ["encoder", "layers", "layers a-b", "layers 1-", "layer 1", "layers -1", "pos"])
def test_other_texts_name_no_part_of_the_encoder(part):
    assert not is_encoder_part(part)
    assert is_encoder_part("embeddings") and is_encoder_part("layers 0-11") and is_encoder_part("layers 3")
