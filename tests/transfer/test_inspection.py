"""The inspection of a trained model, and the inputs that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapted_models import adapted
from inspected_models import texts_of

from mtl_nlp import Recipe
from mtl_nlp.errors import CommandError, ModelError, RecipeError
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.build import build_model
from mtl_nlp.run.prepare import prepare
from mtl_nlp.transfer.encoder_layers import find_layers
from mtl_nlp.transfer.inspection import _ablation, _adapters, inspect_model, write_inspection


def test_a_model_that_has_not_been_trained_has_not_moved(run, saved):
    found = inspect_model(str(saved), run.recipe, rows=6)
    assert found["rows"] == {"sample": 6}
    assert found["layers"] == ["embeddings", "layer 0", "layer 1"]
    (movement,) = found["movement"]
    assert movement["weights"] == [0.0, 0.0, 0.0]
    assert movement["cka"] == pytest.approx([1.0, 1.0, 1.0])
    assert [len(of_task) for of_task in found["need"]["scores"].values()] == [3, 3, 3]
    assert [len(layer) for layer in found["ablation"]["heads"]["topic"]] == [4, 4]
    assert found["tasks"]["topic"]["units"] == 6
    assert found["adapters"] is None
    assert found["left_out"] == []
    config = json.loads((saved / "config.json").read_text())
    assert found["provenance"]["weights_sha256"] == config["weights_sha256"]
    assert found["provenance"]["recipe_sha256"] == run.recipe.sha256()


def test_a_model_that_started_from_a_trained_model_is_compared_with_that_model(quick_recipe, saved, tmp_path):
    recipe = {**quick_recipe, "encoder": str(saved), "adapters": {"r": 2, "tasks": ["pos", "ner"], "shared": True}}
    run = prepare(Recipe.from_dict(recipe))
    model: MultitaskModel = build_model(run)
    for parameter in model.encoder.parameters():
        parameter.data += 0.1
    model.save_pretrained(tmp_path / "second")
    run.tokenizer.save_pretrained(tmp_path / "second")
    found = inspect_model(str(tmp_path / "second"), run.recipe, rows=4)
    assert [group["tasks"] for group in found["movement"]] == [["pos"], ["ner"], ["topic"]]
    assert all(value > 0.1 for group in found["movement"] for value in group["weights"])
    assert found["adapters"]["names"] == ["shared", "pos", "ner"]


def test_parts_that_cannot_be_measured_have_a_reason():
    model, texts = adapted(adapters=("pos",)), texts_of()
    left_out: list[str] = []
    assert _ablation(model, None, texts, {}, left_out) is None
    assert _adapters(model, None, left_out) is None
    dora = adapted(adapters=("pos",), use_dora=True)
    layers = find_layers(dora.encoder, {"input_ids": torch.tensor([[5, 6]])})
    assert _adapters(dora, layers, left_out) is None
    assert [reason.split(":")[0] for reason in left_out] == ["ablation", "adapters", "adapters"]
    assert "bert encoder are not known" in left_out[0]


def test_streamed_training_rows_cannot_train_probes(quick_recipe, saved):
    quick_recipe["datasets"]["sample"] |= {"streaming": True}
    found = inspect_model(str(saved), Recipe.from_dict(quick_recipe), rows=3)
    assert found["need"] is None
    assert found["left_out"] == ["need: probes learn from the training split, and that of sample is streamed."]


def test_other_inputs_are_refused(quick_recipe, saved, encoder_folder: Callable[[str], str], tmp_path: Path):
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(CommandError, match="rows: should be at least 2"):
        inspect_model(str(saved), recipe, rows=1)
    with pytest.raises(ModelError, match="none"):
        inspect_model(str(tmp_path / "none"), recipe)
    with pytest.raises(ModelError, match="without multitask heads"):
        inspect_model(encoder_folder("bert"), recipe)
    with pytest.raises(RecipeError, match=r"^encoder: /no/encoder"):
        inspect_model(str(saved), Recipe.from_dict({**quick_recipe, "encoder": "/no/encoder"}))
    with pytest.raises(RecipeError, match="did not start from this encoder"):
        inspect_model(str(saved), Recipe.from_dict({**quick_recipe, "encoder": encoder_folder("distilbert")}), rows=2)


def test_the_file_is_json_without_nan(tmp_path):
    write_inspection(tmp_path / "inspection.json", {"score": float("nan")})
    assert json.loads((tmp_path / "inspection.json").read_text()) == {"score": None}
    (tmp_path / "link.json").symlink_to(tmp_path / "x")
    with pytest.raises(ModelError, match="symbolic link"):
        write_inspection(tmp_path / "link.json", {})
