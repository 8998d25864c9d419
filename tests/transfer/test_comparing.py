from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import fails
from plain_recipes import PLAIN

import mtl_nlp
from mtl_nlp.cli.main import main
from mtl_nlp.errors import CommandError
from mtl_nlp.transfer.comparing import check_folder, compare, seeds_of
from mtl_nlp.transfer.sides import FinishedRun, FinishedSide


def slow(test: Callable) -> Callable:
    """Mark a test that trains several runs."""
    return pytest.mark.slow(pytest.mark.timeout(900)(test))


def content_of(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text())


def times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/results.json")}


@slow
def test_a_comparison_has_runs_scores_differences_and_costs(compared):
    content = content_of(compared / "compared")
    assert (content["split"], content["seeds"], content["reference"]) == ("test", [1, 2], "single")
    assert list(content["sides"]) == ["joint", "single"]
    assert [len(models) for models in content["sides"]["single"]["runs"].values()] == [2, 2]
    for name, entry in content["tasks"].items():
        assert entry["metric"] == "accuracy"
        assert {len(values) for values in entry["values"].values()} == {2}
        difference = entry["differences"]["joint - single"]
        means = {side: sum(values) / 2 for side, values in entry["values"].items()}
        assert math.isclose(difference["delta"], means["joint"] - means["single"], abs_tol=1e-9), name
        assert difference["low"] < difference["delta"] < difference["high"]
        assert difference["p_holm"] >= difference["p"]
        assert difference["word"] in {"helped", "hurt", "no clear difference"}
    joint, single = (content["sides"][side]["cost"] for side in ("joint", "single"))
    assert (joint["models"], single["models"]) == (1, 2)
    assert (joint["answering_passes"], single["answering_passes"]) == (1, 2)
    assert single["parameters"] > 1.5 * joint["parameters"]
    assert all(value > 0 for cost in (joint, single) for value in cost.values())


@slow
def test_runs_are_folders_of_trained_models_without_checkpoints(compared):
    folders = list((compared / "compared" / "runs").iterdir())
    assert len(folders) == 6
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "recipe.yaml", "results.json", "predictions.jsonl", "training_log.jsonl"} <= names
        assert not any(name.startswith("checkpoint") for name in names)


@slow
def test_a_second_call_trains_nothing_and_a_further_seed_is_added(compared, capsys):
    folder = compared / "compared"
    before, content = times(folder), content_of(folder)
    assert main(["compare", str(compared / "joint.yaml"), "--seeds", "2", "--output", str(folder)]) == 0
    assert "[1/" not in capsys.readouterr().out
    assert times(folder) == before
    again = content_of(folder)
    assert again["tasks"] == content["tasks"]
    assert main(["compare", str(compared / "joint.yaml"), "--dry-run", "--output", str(folder)]) == 0
    assert "3 of 9 runs are missing" in capsys.readouterr().out


@slow
def test_finished_runs_give_the_same_differences(compared, tmp_path, capsys):
    content = content_of(compared / "compared")
    runs = [str(path) for path in sorted((compared / "compared" / "runs").iterdir())]
    assert main(["compare", *runs, "--output", str(tmp_path / "again")]) == 0
    again = content_of(tmp_path / "again")
    (pair,) = again["tasks"]["pos"]["differences"]
    assert pair.endswith(" - single")
    for task in ("pos", "topic"):
        assert again["tasks"][task]["differences"][pair] == content["tasks"][task]["differences"]["joint - single"]


@slow
def test_a_file_of_predictions_is_a_side(compared, tmp_path, capsys):
    (first, *_) = sorted((compared / "compared" / "runs").glob("joint-*"))
    theirs = tmp_path / "theirs.jsonl"
    shutil.copy(first / "predictions.jsonl", theirs)
    assert main(["compare", str(first), str(theirs), "--output", str(tmp_path / "c")]) == 0
    content = content_of(tmp_path / "c")
    difference = content["tasks"]["pos"]["differences"][f"theirs - {first.name}"]
    assert (difference["delta"], difference["word"]) == (0.0, None)
    assert set(content["sides"]["theirs"]["cost"].values()) == {None}
    copied = tmp_path / "c" / content["sides"]["theirs"]["predictions"] / "predictions.jsonl"
    assert copied.read_bytes() == theirs.read_bytes()
    assert "The runs have no predictions" not in (tmp_path / "c" / "report.html").read_text()
    assert any("One seed gives no interval" in note for note in content["notes"])
    lines = [json.loads(line) for line in theirs.read_text().splitlines()]
    theirs.write_text("".join(json.dumps(line) + "\n" for line in lines if line["task"] == "pos"))
    capsys.readouterr()
    assert main(["compare", str(first), str(theirs), "--output", str(tmp_path / "c")]) == 0
    assert "note: topic is left out, since not every side has predictions for it" in capsys.readouterr().out
    assert list(content_of(tmp_path / "c")["tasks"]) == ["pos"]
    lines[0]["gold"] = ["X"] * len(lines[0]["gold"])
    theirs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "gold" in fails(capsys, "compare", str(first), str(theirs), "--output", str(tmp_path / "c"))
    assert "Name a recipe or a run too" in fails(capsys, "compare", str(theirs), "--output", str(tmp_path / "d"))


@slow
def test_a_killed_comparison_goes_on_with_the_run_in_hand(compared, tmp_path):
    recipe = yaml.safe_load((compared / "joint.yaml").read_text())
    recipe["training"] |= {"max_steps": 400, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 20}
    (tmp_path / "joint.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "mtl_nlp", "compare", str(tmp_path / "joint.yaml"), "--seeds", "1"]
    command += ["--output", str(tmp_path / "c")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("c/runs/*/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130
    assert errors.splitlines()[-1].endswith("To continue, repeat the command.")
    (folder,) = tmp_path.glob("c/runs/*")
    assert list(folder.glob("checkpoint-*"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("c/logs/joint*")
    assert "resuming from checkpoint-" in log.read_text()


def test_a_folder_of_something_else_is_refused(compared_folder, capsys):
    (compared_folder / "notes.txt").touch()
    with pytest.raises(CommandError, match=r"holds files that do not belong to a comparison, such as notes\.txt"):
        check_folder(compared_folder, ["joint"], ["pos"])
    (compared_folder / "notes.txt").unlink()
    (compared_folder / "comparison.json").write_text(
        json.dumps({"tasks": {"a": {}, "b": {}}, "sides": {"joint": {}, "single": {}}})
    )
    check_folder(compared_folder, ["joint"], ["b", "a"])
    check_folder(compared_folder, ["joint"], [])
    with pytest.raises(CommandError, match=r"holds a comparison of the tasks a, b, and not of pos\."):
        check_folder(compared_folder, ["joint"], ["pos"])
    check_folder(compared_folder, ["joint", "other"], ["a", "b"])
    with pytest.raises(CommandError, match=r"holds a comparison with the side joint, which would be lost\."):
        check_folder(compared_folder, ["other"], ["a", "b"])
    (compared_folder / "comparison.json").write_text("{")
    with pytest.raises(mtl_nlp.DataError, match=r"comparison\.json is damaged .* the runs are kept"):
        check_folder(compared_folder, ["joint"], ["pos"])


@pytest.fixture
def compared_folder(tmp_path: Path) -> Path:
    (tmp_path / "c" / "runs").mkdir(parents=True)
    return tmp_path / "c"


def test_hidden_files_do_not_make_a_folder_foreign(compared_folder):
    (compared_folder / ".comparison.json.new").touch()  # left by a command that was killed
    check_folder(compared_folder, ["joint"], ["pos"])


def test_recipes_as_objects_need_different_names(tmp_path):
    recipe = mtl_nlp.Recipe.from_dict({**PLAIN, "output_dir": "runs/x"})
    with pytest.raises(CommandError, match=r"two sides are named 'x'\."):
        compare([recipe, recipe], output=tmp_path / "c")
    alone = mtl_nlp.Recipe.from_dict({**PLAIN, "output_dir": "runs/single"})
    with pytest.raises(CommandError, match=r"'single' is the name of the runs with one task each"):
        compare(alone, output=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_learning_curve_needs_a_recipe(tmp_path):
    run = FinishedRun(tmp_path, ["pos"], "test", "k", 1)
    with pytest.raises(CommandError, match=r"^--learning-curve: trains recipes on fewer rows"):
        compare([FinishedSide("x", "X", [[run]])], output=tmp_path / "c", learning_curve=True)


def test_seeds_are_counted_or_named():
    assert seeds_of(3) == [1, 2, 3]
    assert seeds_of([7, 9]) == [7, 9]
    for bad in (0, [], [1, 1], "3", [1.5]):
        with pytest.raises(CommandError, match="`seeds` should be a number of seeds, or at least one integer"):
            seeds_of(bad)
