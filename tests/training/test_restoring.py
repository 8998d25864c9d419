"""Refusal of damaged checkpoints in one line, without running code from them."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from toys import build_config, build_tokenizer, sample_recipe
from transformers import AutoModel, TrainerCallback, get_scheduler

from mtl_nlp.cli.main import main
from mtl_nlp.errors import CheckpointError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.training.checkpoints import describe_changes
from mtl_nlp.training.restoring import (
    check_optimizer,
    check_scaler,
    check_schedule,
    read_settings,
    read_stream_position,
    read_trainer_state,
)


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
    return prepare(Recipe.load(trained / "recipe.yaml"))


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
        (("best_metric",), 10**400),
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


@pytest.mark.parametrize("part", ["args", "attributes"])
def test_unknown_values_of_callbacks_are_refused(checkpoint, resume, part):
    file = checkpoint / "trainer_state.json"
    content = json.loads(file.read_text())
    content["stateful_callbacks"]["EarlyStoppingCallback"][part]["on_step_end"] = 5
    file.write_text(json.dumps(content))
    assert "on_step_end" in refused(resume)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("optimizer.pt", (), 5),
        ("optimizer.pt", ("state",), 5),
        ("optimizer.pt", ("state", 0), 5),
        ("optimizer.pt", ("state", 0, "exp_avg"), 10**9),
        ("optimizer.pt", ("state", 0, "exp_avg"), torch.zeros(3)),
        ("optimizer.pt", ("state", 0, "exp_avg", 0), float("nan")),
        ("optimizer.pt", ("state", 0), {"step": torch.tensor(1.0)}),
        ("optimizer.pt", ("state", 0, "step"), None),
        ("optimizer.pt", ("state", 0, "step"), torch.zeros(3)),
        ("optimizer.pt", ("param_groups",), []),
        ("optimizer.pt", ("param_groups", 0), 1.5),
        ("optimizer.pt", ("param_groups", 0, "lr"), "x"),
        ("optimizer.pt", ("param_groups", 0, "lr"), float("nan")),
        ("optimizer.pt", ("param_groups", 0, "betas"), 5),
        ("optimizer.pt", ("param_groups", 0, "initial_lr"), "x"),
        ("optimizer.pt", ("param_groups", 0, "params"), [0]),
        ("scheduler.pt", (), torch.zeros(3)),
        ("scheduler.pt", ("base_lrs",), [1.0]),
        ("scheduler.pt", ("base_lrs",), ["x", "y"]),
        ("scheduler.pt", ("last_epoch",), None),
        ("scheduler.pt", ("last_epoch",), -5),
        ("scheduler.pt", ("last_epoch",), 1.5),
        ("scheduler.pt", ("_step_count",), 10**30),
        ("scheduler.pt", ("lr_lambdas",), None),
        ("scheduler.pt", ("lr_lambdas",), [{}]),
        ("scheduler.pt", ("lr_lambdas", 0), 5),
        ("scheduler.pt", ("step",), 5),
        ("scheduler.pt", ("optimizer",), 5),
        ("scheduler.pt", (5,), 5),
        ("rng_state.pth", (), "x"),
        ("rng_state.pth", ("python",), 7),
        ("rng_state.pth", ("python",), (3, (1, 2), None)),
        ("rng_state.pth", ("python",), (3, random.Random(0).getstate()[1], "x")),
        ("rng_state.pth", ("numpy",), -1),
        ("rng_state.pth", ("numpy",), ("MT19937", np.zeros(624, np.uint32), 10**6, 0, 0.0)),
        ("rng_state.pth", ("numpy",), ("MT19937", np.zeros(624, np.uint32), 5, 0, float("nan"))),
        ("rng_state.pth", ("cpu",), torch.zeros(3)),
    ],
    ids=str,
)
def test_states_of_optimizer_schedule_and_random_numbers_are_checked(checkpoint, resume, file, path, value):
    torch.save(replaced(torch.load(checkpoint / file, weights_only=False), path, value), checkpoint / file)
    assert str(checkpoint) in refused(resume)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("scheduler.pt", ("last_epoch",)),
        ("scheduler.pt", ("lr_lambdas",)),
        ("rng_state.pth", ("cpu",)),
        ("optimizer.pt", ("param_groups", 1, "weight_decay")),
        ("optimizer.pt", ("state", 0, "exp_avg_sq")),
    ],
    ids=str,
)
def test_missing_key_of_a_state_is_reported(checkpoint, resume, file, path):
    state = torch.load(checkpoint / file, weights_only=False)
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    torch.save(state, checkpoint / file)
    assert file in refused(resume)


def test_checkpoint_with_the_optimizer_of_fsdp_is_refused(checkpoint, resume):
    (checkpoint / "optimizer.pt").rename(checkpoint / "optimizer.bin")
    assert "optimizer.pt cannot be loaded" in refused(resume)


def test_states_are_refused_before_the_training_starts(checkpoint, resume, run, tmp_path):
    state = torch.load(checkpoint / "rng_state.pth", weights_only=False)
    torch.save({**state, "cpu": torch.zeros(3)}, checkpoint / "rng_state.pth")
    started: list[str] = []

    class Started(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            started.append("training")

    trainer = build_trainer(run, build_model(run), training_arguments(run.recipe))
    trainer.add_callback(Started())
    with pytest.raises(CheckpointError, match=r"rng_state\.pth cannot be loaded"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert not started


def test_check_of_the_states_changes_neither_optimizer_nor_random_numbers(checkpoint, run):
    trainer = build_trainer(run, build_model(run), training_arguments(run.recipe))
    optimizer = trainer.create_optimizer()
    before = copy.deepcopy(optimizer.state_dict())
    random_states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    trainer.check_states(checkpoint, checkpoint / "rng_state.pth")
    assert trainer.optimizer is optimizer
    assert optimizer.state_dict() == before
    assert trainer.lr_scheduler is None
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == random_states


@pytest.mark.parametrize("kind", ["constant", "cosine", "reduce_lr_on_plateau", "greedy"])
def test_state_of_each_schedule_is_accepted_and_checked(kind):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=10)
    state = schedule.state_dict()
    check_schedule(schedule, state)
    with pytest.raises(ValueError, match="last_epoch"):
        check_schedule(schedule, {**state, "last_epoch": "x"})
    with pytest.raises(ValueError, match="_last_lr"):
        check_schedule(schedule, {**state, "_last_lr": [0.1, 0.1]})


def test_state_of_a_different_kind_of_schedule_is_accepted():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    linear = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=10)
    constant = get_scheduler("constant", optimizer)
    check_schedule(constant, linear.state_dict())
    check_schedule(linear, constant.state_dict())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), 5),
        ((), {}),
        (("scale",), 0.0),
        (("scale",), float("inf")),
        (("scale",), "x"),
        (("growth_interval",), None),
        (("growth_interval",), 0),
        (("_growth_tracker",), -1),
    ],
    ids=str,
)
def test_state_of_a_gradient_scaler_is_checked(path, value):
    scaler = torch.amp.GradScaler("cpu")
    state = scaler.state_dict()
    check_scaler(scaler, state)
    with pytest.raises(ValueError, match=r"scaler|scale|growth"):
        check_scaler(scaler, replaced(state, path, value))


def test_state_of_a_gradient_scaler_without_a_scaler_is_refused(checkpoint, resume):
    torch.save(torch.amp.GradScaler("cpu").state_dict(), checkpoint / "scaler.pt")
    assert "scaler.pt cannot be loaded: the run has no gradient scaler" in refused(resume)


@pytest.mark.parametrize("pickled", [b"", b"\x80\x02", b"\x80\x02X\x01", b"\x80\x02.", b"\x80\x02h\x05."], ids=repr)
def test_damaged_pickle_is_refused(checkpoint, resume, pickled):
    with zipfile.ZipFile(checkpoint / "optimizer.pt", "w") as content:
        content.writestr("archive/data.pkl", pickled)
        content.writestr("archive/version", "3")
    assert "optimizer.pt cannot be loaded" in refused(resume)


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


def test_recipe_whose_aliases_stand_for_very_many_values_is_refused(checkpoint, trained):
    lines = [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)]
    (checkpoint / "recipe.yaml").write_text("\n".join(["a0: &a0 [x, x]", *lines]))
    with pytest.raises(CheckpointError, match=r"recipe\.yaml cannot be loaded: the file should have at most 100000"):
        describe_changes(checkpoint, Recipe.load(trained / "recipe.yaml"), 1)


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


def test_the_state_of_an_optimizer_with_more_weights_names_the_cause():
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    state = torch.optim.AdamW(weights).state_dict()
    message = r"^The checkpoint trained 3 weights, and this run trains 2: an earlier version of mtl_nlp also trained"
    with pytest.raises(CheckpointError, match=message):
        check_optimizer(torch.optim.AdamW(weights[:2]), state)
