"""Models with adapters that an earlier release saved, which wrote the names of tasks differently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from toys import lively_model, liven_adapters

from mtl_nlp import MultitaskModel, TextClassification
from mtl_nlp.modeling.adapters_multitask import peft_adapter_name
from mtl_nlp.modeling.earlier_names_multitask import current_name

NAMES = ["a.b", "100%", "a%2Eb", "ner-wnut", "sentiment (fine)", "a b", "[x]", "café", "a|b", "ner_wnut"]


def earlier_adapter_name(task: str) -> str:
    return "task_" + task.replace("%", "%25").replace(".", "%2E")


def save_like_an_earlier_release(model: MultitaskModel, folder: Path) -> None:
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for task in model.tasks:
        now, then = f".{peft_adapter_name(task)}.", f".{earlier_adapter_name(task)}."
        weights = {name.replace(now, then): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=["lora", "dora"])
def model(request: pytest.FixtureRequest) -> MultitaskModel:
    """A model with an adapter for each name."""
    model = lively_model([TextClassification(name=name, labels=["x", "y"]) for name in NAMES])
    for name in NAMES:
        model.add_adapter(LoraConfig(r=2, target_modules=["query"], use_dora=request.param == "dora"), name)
    return liven_adapters(model)


def test_model_of_an_earlier_release_is_loaded_and_saved_with_current_names(model, tmp_path):
    save_like_an_earlier_release(model, tmp_path)
    loaded, report = MultitaskModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for again in range(2):
        expected = model.state_dict()
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
        loaded.save_pretrained(tmp_path / str(again))
        assert load_file(tmp_path / str(again) / "model.safetensors").keys() == expected.keys()
        loaded = MultitaskModel.from_pretrained(tmp_path / str(again))


def test_state_dict_of_an_earlier_release_is_loaded(model, tmp_path):
    save_like_an_earlier_release(model, tmp_path)
    new = MultitaskModel(model.config)
    assert not any(new.load_state_dict(load_file(tmp_path / "model.safetensors")))
    expected = model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in new.state_dict().items())


def test_current_names_do_not_change(model):
    assert [current_name(name) for name in model.state_dict()] == list(model.state_dict())
