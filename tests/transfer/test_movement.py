"""Movement against naive formulas."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from adapted_models import POS, adapted
from inspected_models import inputs, layers_of, model_of, texts_of

from mtl_nlp.errors import RecipeError
from mtl_nlp.transfer.encoder_layers import find_layers
from mtl_nlp.transfer.movement import LinearCKA, measure_movement, read_positions, relative_norms


def cka_of(x: torch.Tensor, y: torch.Tensor) -> float | None:
    measure = LinearCKA()
    for rows in (slice(0, 3), slice(3, None)):
        measure.add(x[rows], y[rows])
    return measure.value()


def test_cka_is_the_formula_and_does_not_see_rotation_scale_and_shift():
    torch.manual_seed(0)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 6, dtype=torch.float64)
    a, b = x - x.mean(0), y - y.mean(0)
    naive = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert cka_of(x, y) == pytest.approx(float(naive), rel=1e-10)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    assert cka_of(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-10)
    assert 0 < cka_of(x, y) < 1


def test_cka_of_constant_states_is_not_defined():
    assert cka_of(torch.randn(8, 3), torch.full((8, 3), 0.1)) is None


def test_an_encoder_that_stood_still_has_not_moved():
    model = model_of()
    (found,) = measure_movement(model, copy.deepcopy(model), layers_of(model), texts_of())
    assert found.tasks == ["pos", "ner", "topic"]
    assert found.weights == [0.0, 0.0, 0.0]
    assert found.cka == pytest.approx([1.0, 1.0, 1.0])


def test_relative_norms_are_those_of_the_weights_of_each_layer():
    start, model = model_of(), model_of()
    model.encoder.encoder.layer[1].output.dense.weight.data *= 1.5
    layer = start.encoder.encoder.layer[1]
    total = sum(float(weight.square().sum()) for weight in layer.state_dict().values())
    moved = float((0.5 * layer.output.dense.weight.detach()).square().sum())
    (found,) = measure_movement(model, start, layers_of(model), texts_of())
    assert found.weights == pytest.approx([0.0, 0.0, (moved / total) ** 0.5])
    assert found.cka[:2] == pytest.approx([1.0, 1.0])
    assert found.cka[2] < 0.999


def test_shared_layers_have_the_same_movement():
    start, model = model_of("albert"), model_of("albert")
    for parameter in model.encoder.parameters():
        parameter.data *= 2
    found = relative_norms(model.encoder.state_dict(), start.encoder.state_dict(), layers_of(model))
    assert found == pytest.approx([1.0, 1.0, 1.0])


def test_each_set_of_adapters_moves_the_encoder_in_its_own_way():
    model = adapted(adapters=("pos", "ner"))
    start = adapted(adapters=())
    layers = find_layers(model.encoder, inputs(rows=2))
    found = measure_movement(model, start, layers, texts_of())
    assert [each.tasks for each in found] == [["pos"], ["ner"], ["topic"]]
    assert found[0].weights[1] > 0.1
    assert found[0].weights != found[1].weights
    assert found[2].weights == [0.0, 0.0, 0.0]
    assert found[2].cka == pytest.approx([1.0] * 3)
    merged = model.merge_and_unload("pos")
    (alone,) = measure_movement(merged, start, layers_of(merged), replace(texts_of(), tasks={"pos": POS}))
    assert alone.weights == pytest.approx(found[0].weights)
    assert alone.cka == pytest.approx(found[0].cka)


def test_an_encoder_of_a_different_size_is_refused():
    with pytest.raises(RecipeError, match=r"encoder: the model did not start from this encoder\. Its weight embedd"):
        measure_movement(model_of(), model_of(vocab_size=400), None, texts_of())


def test_states_are_compared_at_words_or_at_all_sub_words_of_unsplit_texts():
    batch = texts_of().batches[0]
    rows, places = read_positions(batch)
    assert list(zip(rows.tolist(), places.tolist(), strict=True))[:6] == [*((0, n) for n in range(1, 6)), (1, 1)]
    unsplit = batch._replace(features=[{**feature, "positions": []} for feature in batch.features])
    assert len(read_positions(unsplit)[0]) == int(batch.inputs["attention_mask"].sum())
