"""The command `average`."""

from __future__ import annotations

import shutil

from command_line import fails

from mtl_nlp.cli.main import main


def test_average_prints_a_table_of_each_split_and_says_where_the_model_is(trained, tmp_path, capsys):
    model, copy = str(trained / "run"), str(shutil.copytree(trained / "run", tmp_path / "copy"))
    output = str(tmp_path / "soup")
    few = ("--set", "datasets.sample.max_rows={validation: 10, test: 10}")
    assert main(["average", model, copy, output, "--recipe", str(trained / "recipe.yaml"), *few]) == 0
    printed = capsys.readouterr().out
    for split in ("validation", "test"):
        assert f"{split} score" in printed
    assert printed.splitlines()[-1] == f"The average of 2 models is in {output}."
    # Equal models have equal scores.
    rows = [line.split() for line in printed.splitlines() if line.startswith("pos ")]
    assert [len({*scores}) for _, _, *scores in rows] == [1, 1]


def test_other_inputs_are_refused_in_one_line(trained, tmp_path, capsys):
    model, none = str(trained / "run"), str(tmp_path / "none")
    assert "there is no such folder" in fails(capsys, "average", model, none, str(tmp_path / "soup"))
    assert "should be a new or empty folder" in fails(capsys, "average", model, none, model)
    assert "--set: changes a recipe" in fails(capsys, "average", model, none, str(tmp_path / "soup"), "--set", "a=b")
    recipe = str(trained / "recipe.yaml")
    renamed = ("--set", "tasks.dep={type: text-classification}", "--set", "datasets.sample.labels.dep=topic")
    copy = str(shutil.copytree(trained / "run", tmp_path / "copy"))
    found = fails(capsys, "average", model, copy, str(tmp_path / "soup"), "--recipe", recipe, *renamed)
    assert "tasks.dep: the model in" in found
