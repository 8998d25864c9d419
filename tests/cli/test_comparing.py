from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import fails, write
from plain_recipes import PLAIN

from mtl_nlp.cli.main import main


@pytest.fixture
def output(tmp_path: Path) -> list[str]:
    return ["--output", str(tmp_path / "out")]


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, output):
    assert "there is no file or folder nowhere.yaml" in fails(capsys, "compare", "nowhere.yaml", *output)
    (tmp_path / "theirs.jsonl").touch()
    assert "Name a recipe or a run too" in fails(capsys, "compare", str(tmp_path / "theirs.jsonl"), *output)
    assert "it has no config.json" in fails(capsys, "compare", str(tmp_path), *output)
    recipe = write(tmp_path / "recipe.yaml", PLAIN)
    assert "--set takes key.path=value" in fails(capsys, "compare", recipe, *output, "--set", "x")
    assert "--jobs: should be at most" in fails(capsys, "compare", recipe, *output, "--jobs", "9999")
    assert not (tmp_path / "out").exists()


def test_seeds_are_a_number(tmp_path, capsys):
    for bad in ("0", "1,2", "-1"):
        with pytest.raises(SystemExit) as ended:
            main(["compare", "recipe.yaml", "--seeds", bad])
        assert ended.value.code == 2
        assert "--seeds: should be an integer of at least 1" in capsys.readouterr().err


def test_finished_runs_have_no_runs_to_list(tmp_path, capsys, output):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    scores = {"split": "test", "tasks": {"pos": {"accuracy": 0.5}}, "mtl_score": 0.5}
    (tmp_path / "run" / "results.json").write_text(json.dumps(scores))
    (tmp_path / "run" / "predictions.jsonl").touch()
    message = fails(capsys, "compare", str(tmp_path / "run"), "--dry-run", *output)
    assert "--dry-run: lists the runs of recipes" in message


def test_a_dry_run_lists_the_runs_with_their_time_and_writes_nothing(tmp_path, capsys, quick_recipe, output):
    recipe = write(tmp_path / "joint.yaml", quick_recipe)
    assert main(["compare", recipe, "--seeds", "2", "--dry-run", *output]) == 0
    printed = capsys.readouterr().out
    assert "joint, seed 1" in printed
    assert "single topic, seed 2" in printed
    assert "8 of 8 runs are missing; training them takes about" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_is_printed_in_the_format_asked_for(compared, capsys):
    arguments = ["compare", str(compared / "joint.yaml"), "--seeds", "2", "--output", str(compared / "compared")]
    assert main([*arguments, "--format", "markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| pos |" in printed.replace("`", "")
    assert f"The report is in {compared / 'compared' / 'report.html'}." in printed
