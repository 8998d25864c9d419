"""Refusal of damaged checkpoints in one line, without running code from them."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from toys import build_config, build_tokenizer, sample_recipe
from transformers import AutoModel

from mtl_nlp.cli.main import main
from mtl_nlp.errors import CheckpointError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run, prepare_run
from mtl_nlp.training.checkpoints import describe_changes
from mtl_nlp.training.restoring import read_settings, read_stream_position, read_trainer_state


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and, in `run`, the checkpoint of step 1 of 2."""
    folder = tmp_path_factory.mktemp("restoring")
    AutoModel.from_config(build_config("bert", num_hidden_layers=1)).save_pretrained(folder / "encoder")
    build_tokenizer("wordpiece").save_pretrained(folder / "encoder")
    recipe = sample_recipe(str(folder / "encoder"), folder / "run", max_steps=2)
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    recipe["training"] |= {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 64}
    recipe["training"] |= {"early_stopping_patience": 5, "metric_for_best_model": "mtl_score"}
    recipe["training"] |= {"load_best_model_at_end": True}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", str(folder / "recipe.yaml")]) == 0
    return folder


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    """The prepared run; each test builds a new model and trainer."""
    return prepare_run(Recipe.load(trained / "recipe.yaml"))


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint."""
    return Path(shutil.copytree(trained / "run" / "checkpoint-1", tmp_path / "checkpoint-1"))


@pytest.fixture
def resume(run: Run, checkpoint: Path, tmp_path: Path) -> Callable[[], None]:
    """A function that resumes training from the checkpoint."""

    def train() -> None:
        arguments = training_arguments(run.recipe)
        arguments.output_dir, arguments.restore_callback_states_from_checkpoint = str(tmp_path / "run"), True
        trainer = build_trainer(run, build_model(run), arguments)
        trainer.train(resume_from_checkpoint=str(checkpoint))

    return train


def refused(resume: Callable[[], None]) -> str:
    with pytest.raises(CheckpointError) as raised:
        resume()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """Return a copy of nested data with a different value at a path."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def test_undamaged_checkpoint_is_accepted(resume):
    resume()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), 5),
        ((), []),
        (("global_step",), "x"),
        (("global_step",), 1.5),
        (("global_step",), -1),
        (("global_step",), 7),
        (("global_step",), 10**30),
        (("epoch",), None),
        (("epoch",), float("nan")),
        (("max_steps",), [1]),
        (("log_history",), 1.5),
        (("log_history",), [5]),
        (("best_model_checkpoint",), 5),
        (("best_metric",), "x"),
        (("stateful_callbacks",), 5),
        (("stateful_callbacks",), []),
        (("stateful_callbacks",), {}),
        (("stateful_callbacks", "TrainerControl"), 5),
        (("stateful_callbacks", "TrainerControl", "args"), -1),
        (("no_such_field",), 5),
    ],
    ids=str,
)
def test_trainer_state_is_checked(checkpoint, resume, path, value):
    file = checkpoint / "trainer_state.json"
    file.write_text(json.dumps(replaced(json.loads(file.read_text()), path, value)))
    assert "trainer_state.json" in refused(resume)
    with pytest.raises(CheckpointError):
        read_trainer_state(checkpoint)


@pytest.mark.parametrize("part", ["args", "attributes"])
def test_states_of_callbacks_are_checked(checkpoint, resume, part):
    file = checkpoint / "trainer_state.json"
    content = json.loads(file.read_text())
    saved = content["stateful_callbacks"]["EarlyStoppingCallback"][part]
    content["stateful_callbacks"]["EarlyStoppingCallback"][part] = {key: ["x"] for key in saved}
    file.write_text(json.dumps(content))
    assert "EarlyStoppingCallback" in refused(resume)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("optimizer.pt", (), 5),
        ("optimizer.pt", ("state",), 5),
        ("optimizer.pt", ("state", 0), 5),
        ("optimizer.pt", ("state", 0, "exp_avg"), 10**9),
        ("optimizer.pt", ("state", 0, "exp_avg"), torch.zeros(3)),
        ("optimizer.pt", ("state", 0), {"step": torch.tensor(1.0)}),
        ("optimizer.pt", ("state", 0, "step"), None),
        ("optimizer.pt", ("state", 0, "step"), torch.zeros(3)),
        ("optimizer.pt", ("param_groups",), []),
        ("optimizer.pt", ("param_groups", 0), 1.5),
        ("optimizer.pt", ("param_groups", 0, "lr"), "x"),
        ("optimizer.pt", ("param_groups", 0, "lr"), float("nan")),
        ("optimizer.pt", ("param_groups", 0, "betas"), 5),
        ("optimizer.pt", ("param_groups", 0, "params"), [0]),
        ("scheduler.pt", (), torch.zeros(3)),
        ("scheduler.pt", ("base_lrs",), [1.0]),
        ("scheduler.pt", ("base_lrs",), ["x", "y"]),
        ("scheduler.pt", ("last_epoch",), None),
        ("rng_state.pth", (), "x"),
        ("rng_state.pth", ("python",), 7),
        ("rng_state.pth", ("python",), (3, (1, 2), None)),
        ("rng_state.pth", ("numpy",), -1),
        ("rng_state.pth", ("cpu",), torch.zeros(3)),
    ],
    ids=str,
)
def test_states_of_optimizer_schedule_and_random_numbers_are_checked(checkpoint, resume, file, path, value):
    torch.save(replaced(torch.load(checkpoint / file, weights_only=False), path, value), checkpoint / file)
    assert str(checkpoint) in refused(resume)


def test_missing_setting_of_the_optimizer_is_reported(checkpoint, resume):
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    del state["param_groups"][1]["weight_decay"]
    torch.save(state, checkpoint / "optimizer.pt")
    refused(resume)


class RunsCode:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("code-has-run",)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_code_in_a_state_is_refused_and_not_run(checkpoint, resume, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state": RunsCode()}, checkpoint / file)
    refused(resume)
    assert not (tmp_path / "code-has-run").exists()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), 5),
        (("tasks",), 5),
        (("tasks", 0), "pos"),
        (("tasks", 0, "name"), 3),
        (("tasks", 0, "labels"), None),
        (("adapters",), [5]),
        (("text_config", "num_hidden_layers"), 10**9),
    ],
    ids=str,
)
def test_configuration_is_checked(checkpoint, resume, path, value):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(replaced(json.loads(file.read_text()), path, value)))
    assert "config.json cannot be loaded" in refused(resume)


def test_weights_of_a_different_type_are_refused(checkpoint, resume):
    weights = load_file(checkpoint / "model.safetensors")
    weights["heads.0.stock.classifier.bias"] = weights["heads.0.stock.classifier.bias"].int()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "the type of heads.0.stock.classifier.bias was I32" in refused(resume)


@pytest.mark.parametrize("text", ["5", "[1]", "a: [", "\0", "!!python/object/apply:os.mkdir [code-has-run]"])
def test_damaged_recipe_is_refused(checkpoint, trained, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (checkpoint / "recipe.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml cannot be loaded: "):
        describe_changes(checkpoint, Recipe.load(trained / "recipe.yaml"), 1)
    assert not (tmp_path / "code-has-run").exists()


def test_checkpoint_without_a_recipe_has_no_settings(checkpoint):
    (checkpoint / "recipe.yaml").write_text("")
    assert read_settings(checkpoint) == {}


READER = {"pass": 0, "block": 1, "source": None, "used": 3}


def test_position_in_a_stream_is_read(tmp_path):
    state = {"window": 2, "readers": {"a": READER}}
    (tmp_path / "streams.json").write_text(json.dumps(state))
    assert read_stream_position(tmp_path / "streams.json") == state


@pytest.mark.parametrize(
    "state",
    [
        5,
        [],
        {"window": 1},
        {"window": "x", "readers": {}},
        {"window": 1, "readers": 5},
        {"window": 1, "readers": {"a": 5}},
        {"window": 1, "readers": {"a": {**READER, "used": -1}}},
        {"window": 1, "readers": {"a": {**READER, "block": True}}},
        {"window": 1, "readers": {"a": {**READER, "source": 5}}},
    ],
    ids=str,
)
def test_damaged_position_in_a_stream_is_refused(tmp_path, state):
    (tmp_path / "streams.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"streams\.json cannot be loaded"):
        read_stream_position(tmp_path / "streams.json")
