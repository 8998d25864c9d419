"""Names of tasks with any characters, in every stage of the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from command_line import write
from peft import LoraConfig, PeftModel
from toys import lively_model, liven_adapters, sample_recipe
from transformers import AutoModelForTokenClassification

from mtl_nlp import MultitaskModel, TextClassification
from mtl_nlp.cli.main import main

IDS = torch.arange(5, 26).reshape(3, 7)

NAMES = [
    "sentiment (fine)",
    "domain\\user",
    "a.b",
    "[x]",
    "(",
    "x]",
    "(?P<g0>",
    "\\1",
    "*.",
    "+?^$",
    "a|b",
    '"q"',
    "'",
    "a b",
    "café",
    "日本語",
    "100%",
    "%s",
    "%2E",
    "a-b",
    "a/b",
    "../up",
    "--help",
    "{x}",
    "<b>",
    "lora_A",
    "base_layer",
    "LayerNorm",
    "forward",
]


@pytest.fixture
def model() -> MultitaskModel:
    """A model with a task and an adapter for each name."""
    model = lively_model([TextClassification(name=name, labels=["x", "y"]) for name in NAMES])
    for name in ["shared", *NAMES]:
        model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"]), name)
    return liven_adapters(model)


def logits(model: MultitaskModel, task: str) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, tasks=[task]).logits[task]


def test_saved_model_is_loaded_with_every_adapter(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, report = MultitaskModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert all(torch.equal(logits(loaded, name), logits(model, name)) for name in NAMES)
    assert all(len(model.parameters_of(name)) == len(loaded.parameters_of(name)) > 4 for name in NAMES)


def test_merged_model_has_the_logits_of_its_task(model):
    for name in NAMES:
        torch.testing.assert_close(logits(model.merge_and_unload(name), name), logits(model, name))


def test_adapter_and_task_are_removed_without_a_trace(model):
    kept = logits(model, NAMES[-1])
    for name in NAMES[:-1]:
        model.delete_adapter(name)
        model.drop_task(name)
    assert torch.equal(logits(model, NAMES[-1]), kept)
    model.delete_adapter(["shared", NAMES[-1]])
    assert not [name for name, _ in model.named_parameters() if "lora_" in name]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "tab\t", "\x00", "a\u2028b", "\ud800", None, 3])
def test_name_that_is_not_one_line_of_text_is_refused(name):
    with pytest.raises(ValueError, match=r"the name of a task should be a text of one line.* Rename the task\."):
        TextClassification(name=name)


# Commands


RENAMED = {"pos": "domain\\user", "ner": "entities (fine) 100%", "topic": "--[a.b]|{ü}"}


@pytest.fixture(scope="module")
def folder(encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its trained model with adapters, and texts."""
    folder = tmp_path_factory.mktemp("names")
    recipe: dict[str, Any] = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["tasks"] = {RENAMED[name]: options for name, options in recipe["tasks"].items()}
    columns = recipe["datasets"]["sample"]["labels"]
    recipe["datasets"]["sample"]["labels"] = {RENAMED[name]: column for name, column in columns.items()}
    recipe["adapters"] = {"r": 2, "target_modules": ["query"], "shared": True}
    recipe["loss"] = {"weights": {RENAMED["ner"]: 0.5}}
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    write(folder / "recipe.yaml", recipe)
    (folder / "texts.txt").write_text("Ada lives in Paris.\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", str(folder / "recipe.yaml")]) == 0
    return folder


def answers(folder: Path, model: Path) -> dict[str, Any]:
    """Return the answers of `predict` for the first text."""
    assert main(["predict", str(model), str(folder / "texts.txt"), "--output", str(folder / "answers.jsonl")]) == 0
    return json.loads((folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()[0])["answers"]


def test_run_is_logged_scored_and_answers_every_task(folder):
    assert list(answers(folder, folder / "run")) == list(RENAMED.values())
    assert json.loads((folder / "run" / "results.json").read_text())["tasks"].keys() == set(RENAMED.values())
    state = json.loads((folder / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    logged = {key for entry in state["log_history"] for key in entry}
    assert {f"eval_{name}_loss" for name in RENAMED.values()} <= logged


def test_resumed_run_is_equal(folder):
    before = (folder / "run" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "run" / "checkpoint-2")
    assert main(["train", str(folder / "recipe.yaml"), "--resume"]) == 0
    assert (folder / "run" / "model.safetensors").read_bytes() == before


def test_onnx_file_answers_every_task(folder):
    assert main(["export", str(folder / "run"), str(folder / "onnx"), "--format", "onnx"]) == 0
    assert list(answers(folder, folder / "onnx")) == list(RENAMED.values())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # that PEFT uses
def test_task_is_exported_as_a_peft_adapter(folder):
    assert (
        main(["export", str(folder / "run"), str(folder / "peft"), "--format", "peft", "--task", RENAMED["pos"]]) == 0
    )
    model = MultitaskModel.from_pretrained(folder / "run")
    base = AutoModelForTokenClassification.from_pretrained(folder / "peft" / "base")
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, folder / "peft").eval()(IDS).logits
    torch.testing.assert_close(found, logits(model, RENAMED["pos"]))


def test_task_is_dropped(folder):
    assert main(["drop", str(folder / "run"), str(folder / "dropped"), f"--task={RENAMED['topic']}"]) == 0
    expected = answers(folder, folder / "run")
    del expected[RENAMED["topic"]]
    assert answers(folder, folder / "dropped") == expected
