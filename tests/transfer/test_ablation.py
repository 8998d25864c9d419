"""Ablation against changed weights and removed layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from adapted_models import adapted
from inspected_models import TASKS, inputs, layers_of, model_of, texts_of
from scipy.stats import spearmanr
from toys import FAMILIES

from mtl_nlp.transfer.ablation import LayerSwitches, ablate, needed_heads, overlap, rank_correlations
from mtl_nlp.transfer.encoder_layers import find_layers
from mtl_nlp.transfer.inspected_texts import score_texts

VALUES = {
    "distilbert": "attention.v_lin",
    "albert": "albert_layers.0.attention.value",
    "mpnet": "attention.attn.v",
    "deberta-v2": "attention.self.value_proj",
    "modernbert": "attn.Wqkv",
}
"""The linear layer of the values in a layer of a family; BERT's name for all others."""


def logits(model: torch.nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        return [*model(**inputs()).logits.values()]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_zeroed_head_equals_a_head_without_values(family):
    model = model_of(family)
    layers = layers_of(model)
    with LayerSwitches(model.encoder, layers) as switches:
        switches.zeroed = (1, 2)
        found = logits(model)
    other = copy.deepcopy(model)
    value = other.encoder.get_submodule(layers.names[1]).get_submodule(VALUES.get(family, "attention.self.value"))
    size, start = 32 // 4, 2 * 32 // 4 + (64 if family == "modernbert" else 0)  # after queries and keys
    calls = []

    def without_head(module: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        calls.append(module)
        if family != "albert" or len(calls) == 2:  # ALBERT's layers are one module
            output = output.clone()
            output[..., start : start + size] = 0
        return output

    value.register_forward_hook(without_head)
    for ours, theirs, full in zip(found, logits(other), logits(model), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not torch.allclose(ours, full)


def test_a_zeroed_head_equals_zero_weights_of_its_part_of_the_projection():
    model = model_of()
    layers = layers_of(model)
    with LayerSwitches(model.encoder, layers) as switches:
        switches.zeroed = (0, 3)
        found = logits(model)
    other = copy.deepcopy(model)
    other.encoder.encoder.layer[0].attention.output.dense.weight.data[:, 24:] = 0
    for ours, theirs in zip(found, logits(other), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_a_skipped_layer_equals_a_removed_layer(family):
    model = model_of(family)
    layers = layers_of(model)
    with LayerSwitches(model.encoder, layers) as switches:
        switches.skipped = 0
        found = logits(model)
    shorter = copy.deepcopy(model)
    name, _ = layers.names[0].rsplit(".", 1)
    del shorter.encoder.get_submodule(name)[0]
    for ours, theirs in zip(found, logits(shorter), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_repeated_outputs_of_lower_layers_change_nothing_and_the_model_is_as_before():
    model = model_of("deberta-v2", num_hidden_layers=4)
    before = logits(model)
    with LayerSwitches(model.encoder, layers_of(model)) as switches:
        switches.recorded = 2
        switches.begin_batch(0)
        logits(model)
        switches.recorded, switches.start = None, 3
        switches.begin_batch(0)
        for ours, theirs in zip(logits(model), before, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert [torch.equal(ours, theirs) for ours, theirs in zip(logits(model), before, strict=True)] == [True] * 3
    assert not any("forward" in vars(module) for module in model.encoder.modules())


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2"])
@pytest.mark.parametrize("with_adapters", [False, True])
def test_all_changes_equal_a_slow_loop_over_heads_and_layers(family, with_adapters):
    model = adapted(family, ("pos", "ner")) if with_adapters else model_of(family)
    texts = texts_of()
    layers = find_layers(model.encoder, inputs(rows=2))
    full = score_texts(model, texts)
    found = ablate(model, layers, texts, full)
    for layer in range(2):
        for head in (0, 3):
            with LayerSwitches(model.encoder, layers) as switches:
                switches.zeroed = (layer, head)
                slow = score_texts(model, texts)
            for name in TASKS:
                assert found.heads[name][layer, head] == pytest.approx(slow[name] - full[name])
        with LayerSwitches(model.encoder, layers) as switches:
            switches.skipped = layer
            slow = score_texts(model, texts)
        for name in TASKS:
            assert found.layers[name][layer] == pytest.approx(slow[name] - full[name])
    assert any(found.heads[name].any() for name in TASKS)


def test_correlations_are_spearmans_and_none_without_a_change():
    chance = np.random.default_rng(0)
    changes = {
        "a": chance.normal(size=(3, 4)).round(1),
        "b": chance.normal(size=(3, 4)).round(1),
        "c": np.zeros((3, 4)),
    }
    found = rank_correlations(changes)
    assert found[0][1] == pytest.approx(spearmanr(changes["a"].ravel(), changes["b"].ravel())[0])
    assert found[2] == [None, None, None]


def test_needed_heads_are_the_largest_falls_shared_or_own():
    a = np.array([[-0.3, 0.1, -0.2], [0.0, -0.1, 0.0]])
    b = np.array([[-0.3, 0.1, 0.2], [-0.4, 0.1, 0.0]])
    assert needed_heads(a, share=0.5) == [(0, 0), (0, 2), (1, 1)]
    assert needed_heads(np.abs(a)) == []
    found = overlap({"a": np.tile(a, 4), "b": np.tile(b, 4)})
    assert found["shared"] == []
    assert found["own"] == {"a": [[0, 0], [0, 3], [0, 6]], "b": [[1, 0], [1, 3], [1, 6]]}
    assert found["harmless"] == {"a": 12, "b": 16}
    alone = overlap({"a": a, "b": np.abs(b)})
    assert alone["shared"] == []
    assert alone["own"] == {"a": [[0, 0]], "b": []}
    both = overlap({"a": a, "b": a})
    assert both["shared"] == [{"layer": 0, "head": 0, "tasks": ["a", "b"]}]
    assert both["own"] == {"a": [], "b": []}
