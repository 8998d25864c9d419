from __future__ import annotations

import json

import pytest
import torch
from trainers import adapted_model, build_model

from mtl_nlp.balancing.conflict import Conflict, block_gramians, blocks_of
from mtl_nlp.messages import json_text

ROWS = {"a": 4, "b": 3}


def gramians_of(*cosines: float) -> torch.Tensor:
    """Return the inner products of two gradients of norms 1 and 2 in blocks with given cosines."""
    return torch.tensor([[[1.0, 2 * cosine], [2 * cosine, 4.0]] for cosine in cosines])


def test_cosines_norms_and_shares_in_conflict_are_means_over_the_measurements():
    conflict = Conflict(["a", "b"], ["layer 0", "layer 1"], every=10)
    conflict.add(10, ROWS, gramians_of(-0.5, 0.25))
    conflict.add(20, ROWS, gramians_of(0.5, 0.5))
    content = conflict.content()
    first, second = content["measurements"]
    assert (first["step"], second["step"], content["every"]) == (10, 20, 10)
    assert first["norms"] == {"a": pytest.approx(2**0.5, rel=1e-5), "b": pytest.approx(8**0.5, rel=1e-5)}
    assert first["norms_by_layer"] == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert first["cosine"] == [[1.0, -0.125], [-0.125, 1.0]]
    assert [each[0][1] for each in first["cosine_by_layer"]] == [-0.5, 0.25]
    mean = content["mean"]
    assert mean["cosine"][0][1] == 0.1875
    assert [each[0][1] for each in mean["cosine_by_layer"]] == [0.0, 0.375]
    assert mean["conflicting"] == [[0.0, 0.5], [0.5, 0.0]]
    assert mean["norms_by_layer"]["b"] == [2.0, 2.0]
    assert conflict.take() == {"cosine_a_b": 0.1875}
    assert conflict.take() == {}


def test_zero_and_infinite_gradients_have_neither_cosine_nor_norm():
    conflict = Conflict(["a", "b"], ["layer 0"], every=1)
    for wrong in (0.0, float("inf"), float("nan")):
        conflict.add(1, ROWS, torch.tensor([[[1.0, wrong], [wrong, wrong]]]))
    content = conflict.content()
    assert content["mean"]["cosine"] == [[1.0, None], [None, None]]
    assert content["mean"]["norms"]["b"] is None
    assert conflict.take() == {}


def test_content_without_measurements_has_the_same_form():
    content = Conflict(["a", "b"], ["embeddings", "layer 0"], every=1).content()
    none = [[None, None], [None, None]]
    assert content["mean"]["cosine"] == content["mean"]["conflicting"] == none
    assert content["mean"]["cosine_by_layer"] == [none, none]
    assert content["mean"]["norms_by_layer"] == {"a": [None, None], "b": [None, None]}


def test_restored_measurements_are_the_same():
    conflict = Conflict(["a", "b"], ["layer 0"], every=1)
    conflict.add(1, ROWS, gramians_of(0.123456789))
    other = Conflict(["a", "b"], ["layer 0"], every=1)
    other.restore(json.loads(json_text(conflict.content())))
    assert other.content() == conflict.content()


def test_blocks_of_gradients_add_up_to_the_complete_gradients():
    model = adapted_model()
    blocks = blocks_of(model)
    assert blocks.own_slices[-1][2] == sum(each.numel() for each in blocks.parameters)
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(3, blocks.own_slices[-1][2], generator=generator, dtype=torch.float64)
    gramians = block_gramians(gradients, blocks.own_slices, len(blocks.names))
    torch.testing.assert_close(gramians.sum(dim=0), gradients @ gradients.T)
    first = [(start, stop) for block, start, stop in blocks.own_slices if block == 1]
    part = torch.cat([gradients[:, start:stop] for start, stop in first], dim=1)
    torch.testing.assert_close(gramians[1], part @ part.T)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "deberta-v2", "modernbert", "mpnet"])
def test_blocks_are_layers_in_order_without_word_embeddings(family):
    model = build_model(family=family, classifier_dropout_prob=0.0)
    blocks = blocks_of(model)
    layers = [name for name in blocks.names if name.startswith("layer ")]
    assert layers == [f"layer {number}" for number in range(1 if family == "albert" else 2)]
    others = [["embeddings"], [], ["rest"]]
    assert [name for name in blocks.names if name not in layers] in ([*a, *b] for a in others for b in others)
    known = set(model.encoder.parameters()) - {model.encoder.get_input_embeddings().weight}
    assert set(blocks.parameters) == known
    assert sum(stop - start for _, start, stop in blocks.slices) == sum(each.numel() for each in known)
