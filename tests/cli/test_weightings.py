"""Loss weightings in the commands: bad keys, the plan, a training with all that it leaves, and refused resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from command_line import fails, write

from mtl_nlp.balancing.registry import build_weighting
from mtl_nlp.cli.main import main
from mtl_nlp.recipe.schema import Recipe

BAD = [
    ({"weighting": "dwaa"}, "loss.weighting: "),
    ({"weighting": "dwa", "weights": {"pos": 1}}, "loss: `weights` are for `weighting: static`"),
    ({"weighting": "dwa", "weighting_kwargs": {"temprature": 1}}, "loss.weighting_kwargs.temprature: dwa has no such"),
    ({"weighting": "stch", "weighting_kwargs": {"mu": 0}}, "loss.weighting_kwargs: `mu` should be finite and above 0"),
    ({"weights": {"pos": 0, "ner": 0, "topic": 0}}, "loss.weights: some task should have a loss weight above 0"),
]


@pytest.mark.parametrize(("loss", "message"), BAD)
def test_bad_keys_are_refused_before_the_data_are_loaded(quick_recipe, tmp_path, capsys, loss, message):
    quick_recipe["datasets"]["sample"]["data_files"] = {"train": "missing.conll"}
    path = write(tmp_path / "recipe.yaml", quick_recipe | {"loss": loss})
    for command in (["plan", path], ["train", path], ["compare", path, "--dry-run"]):
        assert f"error: {message}" in fails(capsys, *command)


@pytest.fixture(scope="module")
def famo(tmp_path_factory, trained) -> Path:
    """A folder with the run of a recipe with FAMO, and checkpoints."""
    folder = tmp_path_factory.mktemp("famo")
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    recipe |= {"output_dir": str(folder / "run"), "loss": {"weighting": "famo"}}
    recipe["training"] |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "logging_steps": 1}
    assert main(["train", write(folder / "recipe.yaml", recipe)]) == 0
    return folder


@pytest.mark.slow
def test_run_names_its_weighting_in_results_card_log_and_report(famo, capsys):
    run = famo / "run"
    assert json.loads((run / "results.json").read_text())["training"]["weighting"] == "famo"
    log = [json.loads(line) for line in (run / "training_log.jsonl").read_text().splitlines()]
    assert {key for entry in log for key in entry if key.startswith("weight_")} == {
        "weight_pos", "weight_ner", "weight_topic",
    }  # fmt: skip
    assert "| weighting | famo |" in (run / "README.md").read_text()
    assert "Loss weights" in (run / "report.html").read_text()
    capsys.readouterr()
    assert main(["plan", str(famo / "recipe.yaml")]) == 0
    assert "loss weighting: famo (learning_rate 0.025, weight_decay 0.001); cost: a second" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_without_the_state_of_the_weighting_is_refused(famo, tmp_path, capsys):
    run = Path(shutil.copytree(famo / "run", tmp_path / "run"))
    shutil.rmtree(run / "checkpoint-2")
    resume = ["train", str(famo / "recipe.yaml"), "--resume", "--set", f"output_dir={run}"]
    error = fails(capsys, *resume, "--set", "loss.weighting=uncertainty")
    assert "belongs to a different loss weighting: loss.weighting (was famo, is uncertainty). Set it back" in error
    error = fails(capsys, *resume, "--set", "loss.weighting_kwargs.learning_rate=0.1")
    assert "loss.weighting_kwargs.learning_rate (was not given, is 0.1)" in error
    state = run / "checkpoint-1" / "weighting.pt"
    recipe = Recipe.load(famo / "recipe.yaml")
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    torch.save(build_weighting("gradnorm", tasks, {}, {}).state_dict(), state)
    assert "cannot be read as the state of the loss weighting Famo" in fails(capsys, *resume)
    state.unlink()
    assert "checkpoint-1 is incomplete (weighting.pt is missing)" in fails(capsys, *resume)
