"""Configurations with two layers of the same family, and random weights."""

from __future__ import annotations

import pytest
import torch
from families import build_family_config
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights

from mtl_nlp.run.shallow import randomize, shallow_config, special_ids


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("bert", {"num_hidden_layers": 2}),
        ("distilbert", {"n_layers": 2}),
        ("bart", {"encoder_layers": 2, "decoder_layers": 2}),
        ("t5", {"num_layers": 2, "num_decoder_layers": 2}),
        ("modernbert", {"num_hidden_layers": 2}),
        ("funnel", {"block_sizes": [1, 1, 1]}),
        ("longformer", {"num_hidden_layers": 2}),
    ],
)
def test_only_the_depth_is_changed(family, layers):
    config = AutoConfig.for_model(family)
    shallow = shallow_config(config)
    assert type(shallow) is type(config)
    assert {key: shallow.to_dict()[key] for key in layers} == layers
    kept = ("hidden_size", "vocab_size", "max_position_embeddings")
    for key in kept:
        assert shallow.to_dict().get(key) == config.to_dict().get(key)
    assert shallow.num_hidden_layers <= 3 < config.num_hidden_layers
    if family != "funnel":  # has several classes, of which a saved encoder names one
        with torch.device("meta"):
            AutoModel.from_config(shallow)


def test_a_list_with_a_member_per_layer_is_cut():
    config = AutoConfig.for_model("modernbert")
    assert len(config.layer_types) == 22
    assert shallow_config(config).layer_types == config.layer_types[:2]


def test_an_encoder_of_two_layers_is_not_changed():
    config = build_family_config("bert")
    assert shallow_config(config).to_dict() == config.to_dict()


def test_random_weights_are_finite_and_only_the_rows_that_are_read_are_written():
    config = AutoConfig.for_model("bert", vocab_size=20_000, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    with no_init_weights():
        model = AutoModel.from_config(config)
    table = model.get_input_embeddings().weight
    table.data.fill_(7.0)
    randomize(model, config, [5, 19_999])
    written = (table != 7.0).any(1).nonzero().flatten().tolist()
    assert written == [config.pad_token_id, 5, 19_999]
    assert not table.requires_grad  # the gradient of a large vocabulary would cost more than the rest
    others = [parameter for parameter in model.parameters() if parameter is not table]
    assert all(parameter.requires_grad and parameter.isfinite().all() and parameter.any() for parameter in others)


def test_special_tokens_of_all_names_are_found():
    assert special_ids(AutoConfig.for_model("bert", pad_token_id=4, eos_token_id=[7, 9])) == {4, 7, 9}
    assert {0, 1, 2, 3} <= special_ids(AutoConfig.for_model("xlm"))  # `pad_index`, …
