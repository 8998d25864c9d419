"""Commands of the README that start two processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import ACCELERATE, REPOSITORY, TORCHRUN, Ended, run
from toys import sample_recipe

MODULE, SCRIPT = ("-m", "mtl_nlp", "train"), (str(REPOSITORY / "scripts" / "train.py"),)
LAUNCHES = {
    "accelerate launch -m mtl_nlp train": (*ACCELERATE, "--num_processes", "2", *MODULE),
    "torchrun -m mtl_nlp train": (*TORCHRUN, "2", *MODULE),
    "accelerate launch scripts/train.py": (*ACCELERATE, "--num_processes", "2", *SCRIPT),
}
BEST = ("eval_strategy=steps", "eval_steps=2", "save_strategy=steps", "save_steps=2", "load_best_model_at_end=true")
OVERRIDES = tuple(part for value in BEST for part in ("--set", f"training.{value}"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(encoder_folder, tmp_path_factory) -> Callable[..., Path]:
    """(name, changes) -> a recipe file in a separate folder, next to the output of its run."""

    def write(name: str, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        content = {**sample_recipe(encoder_folder("bert"), folder / "run", max_steps=4), **changes}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return folder / "recipe.yaml"

    return write


@pytest.fixture(scope="module")
def trained(recipe) -> dict[str, tuple[Path, Ended]]:
    """The recipe and the end of each launch."""
    found = {}
    for name, command in LAUNCHES.items():
        file = recipe("launch")
        found[name] = file, run([*command, str(file), *OVERRIDES], file.parent / "cache")
    return found


@pytest.mark.parametrize("launch", LAUNCHES)
def test_launch_trains_on_two_processes_and_prints_plan_and_scores_once(trained, launch):
    file, ended = trained[launch]
    assert ended.code == 0, ended.stderr[-6000:]
    for line in ("2 processes.", "encoder: ", "test score", "The model is in"):
        assert ended.stdout.count(line) == 1, line
    written = {path.name for path in (file.parent / "run").iterdir()}
    files = {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "results.json"}
    assert files | {"checkpoint-2", "checkpoint-4"} <= written


def test_all_launches_reach_the_same_scores(trained):
    scores = [json.loads((file.parent / "run" / "results.json").read_text())["tasks"] for file, _ in trained.values()]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("processes", [1, 2])
def test_scores_after_training_on_two_processes_equal_those_of_the_saved_model(trained, tmp_path, processes):
    file, _ = trained["torchrun -m mtl_nlp train"]
    model, output = file.parent / "run", tmp_path / "results.json"
    launcher = (sys.executable,) if processes == 1 else (*TORCHRUN, str(processes))
    command = ("-m", "mtl_nlp", "evaluate", str(model), "--recipe", str(file), "--output", str(output))
    ended = run([*launcher, *command], tmp_path / "cache")
    assert ended.code == 0, ended.stderr[-6000:]
    assert ended.stdout.count("test score") == 1
    after, before = (json.loads(path.read_text()) for path in (output, model / "results.json"))
    for key in ("split", "tasks", "mtl_score"):
        assert after[key] == before[key]


def test_bad_input_ends_both_processes_promptly_with_one_line(recipe, tmp_path):
    file = recipe("unknown_key", mixtrue={"temperature": 2.0})
    ended = run([*LAUNCHES["torchrun -m mtl_nlp train"], str(file)], tmp_path / "cache", timeout=90)
    errors = [line for line in ended.stderr.splitlines() if "mtl-nlp: error: " in line]
    assert ended.code != 0
    assert 1 <= len(errors) <= 2
    assert all("mixtrue" in line for line in errors)
    assert "processes." not in ended.stdout


def test_unwritable_folder_ends_both_processes_promptly(recipe, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    file = recipe("no_folder", output_dir=str(tmp_path / "file" / "run"))
    ended = run([*LAUNCHES["torchrun -m mtl_nlp train"], str(file)], tmp_path / "cache", timeout=90)
    assert ended.code != 0
    assert "mtl-nlp: error: output_dir: " in ended.stderr
