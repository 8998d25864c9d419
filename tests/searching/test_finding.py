from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mtl_nlp import search
from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.searching.finding import check_folder, seconds_in


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("40m", 2400), ("1.5h", 5400), (30, 30)])
def test_a_budget_is_a_time(text, seconds):
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["0m", "soon", "-5", "4d", ""])
def test_a_budget_that_is_not_a_time_is_refused(text):
    with pytest.raises(CommandError, match=r"--budget: should be a time above 0, such as 90s, 40m or 1.5h"):
        seconds_in(text)


def test_the_folder_of_a_search_has_no_other_files(tmp_path, monkeypatch):
    (tmp_path / "trials").mkdir()
    (tmp_path / ".search.lock").touch()
    check_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CommandError, match=r"holds files that do not belong to a search, such as notes.txt"):
        check_folder(tmp_path)
    with pytest.raises(CommandError, match="is a file"):
        check_folder(tmp_path / "notes.txt")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CommandError, match="without `accelerate launch`"):
        check_folder(tmp_path / "new")


def test_what_cannot_be_searched_is_refused_before_the_first_trial(quick_recipe, tmp_path):
    with pytest.raises(CommandError, match="name a budget"):
        search(quick_recipe)
    with pytest.raises(CommandError, match="--trials: should be at least 1"):
        search(quick_recipe, trials=0)
    space = {"training.learning_rte": [1, 2]}
    with pytest.raises(RecipeError, match="Did you mean 'learning_rate'"):
        search(quick_recipe | {"search": {"space": space}}, trials=1)
    assert not Path(f"{quick_recipe['output_dir']}-search").exists()


def test_a_missing_optuna_is_named_with_its_extra(quick_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mtl_nlp.searching.studies", raising=False)
    with pytest.raises(CommandError, match=r"optuna is not installed: pip install 'mtl_nlp\[search\]'"):
        search(quick_recipe, trials=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_search_continues_and_two_processes_share_a_study(quick_recipe, tmp_path):
    quick_recipe["training"] |= {"max_steps": 2, "learning_rate": 1e-3}
    quick_recipe["search"] = {"space": {"loss.weights.ner": [3.0, 1.0]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(quick_recipe, sort_keys=False))
    command = [sys.executable, "-m", "mtl_nlp", "search", str(tmp_path / "recipe.yaml"), "--trials", "3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as killed:
        for line in killed.stdout:
            if line.startswith("[1/3] trial 0"):
                break
        killed.send_signal(signal.SIGKILL)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    content = json.loads((Path(f"{quick_recipe['output_dir']}-search") / "search.json").read_text())
    complete = [each["number"] for each in content["trials"]]
    assert len(complete) == 3
    assert complete[0] == 0
    lines = [set(re.findall(r"^\[\d/3\] trial (\d+)", text, flags=re.MULTILINE)) for text, _ in printed]
    assert lines[0] | lines[1] == {str(number) for number in complete[1:]}
    assert not lines[0] & lines[1]
    assert content["best"]["fresh"]
    assert "Keys that mattered:" in printed[0][0]
