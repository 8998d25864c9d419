"""The command `inspect`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import fails

from mtl_nlp.cli.main import main


@pytest.mark.slow
def test_a_trained_model_is_inspected_and_the_report_draws_the_inspection(trained, tmp_path, capsys):
    model = shutil.copytree(trained / "run", tmp_path / "run")
    recipe = str(trained / "recipe.yaml")
    assert main(["inspect", str(model), "--recipe", recipe, "--rows", "10"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "Inspected on validation: 10 texts of sample.",
        "weights moved",
        "score of a probe on",
        "needed most by several tasks",
        f"The inspection is in {model / 'inspection.json'}. Draw it: mtl-nlp report {model}",
    ):
        assert words in printed
    content = json.loads((model / "inspection.json").read_text(encoding="utf-8"))
    assert content["rows"] == {"sample": 10}
    assert 0 < content["movement"][0]["weights"][1] < 0.5
    assert main(["report", str(model)]) == 0
    page = (model / "report.html").read_text(encoding="utf-8")
    assert "Shared by the tasks, or a task&#39;s own" in page
    assert "topic without a head" in page
    # The same files give the same numbers.
    output = tmp_path / "again.json"
    assert main(["inspect", str(model), "--recipe", recipe, "--rows", "10", "--output", str(output)]) == 0
    assert "Draw it" not in capsys.readouterr().out
    again = json.loads(output.read_text(encoding="utf-8"))
    assert {**again, "provenance": None} == {**content, "provenance": None}


def test_other_inputs_are_refused_in_one_line(trained, tmp_path: Path, capsys, encoder_folder):
    model, recipe = str(trained / "run"), str(trained / "recipe.yaml")
    assert "rows: should be at least 2" in fails(capsys, "inspect", model, "--recipe", recipe, "--rows", "1")
    none = str(tmp_path / "none")
    assert f"{none} cannot be loaded: there is no such folder." in fails(capsys, "inspect", none, "--recipe", recipe)
    assert "There is no folder runs/none. " in fails(capsys, "inspect", "runs/none", "--recipe", recipe)
    assert "without multitask heads" in fails(capsys, "inspect", encoder_folder("bert"), "--recipe", recipe)
    assert "encoder: /no" in fails(capsys, "inspect", model, "--recipe", recipe, "--set", "encoder=/no/encoder")
    renamed = ("--set", "tasks.dep={type: text-classification}", "--set", "datasets.sample.labels.dep=topic")
    assert "tasks.dep: the model in" in fails(capsys, "inspect", model, "--recipe", recipe, *renamed)
    assert "--output" in fails(capsys, "inspect", model, "--recipe", recipe, "--output", "/no/folder/x")


def test_a_missing_split_is_refused_in_one_line(trained, capsys):
    model, recipe = str(trained / "run"), str(trained / "recipe.yaml")
    without = ("--set", "datasets.sample.data_files.validation=null")
    message = fails(capsys, "inspect", model, "--recipe", recipe, *without)
    assert "validation" in message
