from __future__ import annotations

import pytest
from command_line import fails, write

from mtl_nlp.cli.grouping import duration
from mtl_nlp.cli.main import main


def test_a_time_has_a_unit(capsys):
    assert [duration(text) for text in ("90s", "1.5m", "2h")] == [90.0, 90.0, 7200.0]
    for bad in ("15", "0m", "-1m", "m", "1d"):
        with pytest.raises(SystemExit) as stopped:
            main(["affinity", "recipe.yaml", f"--budget={bad}"])
        assert stopped.value.code == 2
        assert "should be a time such as 90s, 15m or 2h" in capsys.readouterr().err


def test_bad_input_is_refused_in_one_line(two_tasks, tmp_path, capsys):
    recipe = two_tasks(tmp_path)
    one = {**recipe, "tasks": {"pos": recipe["tasks"]["pos"]}, "datasets": {"words": recipe["datasets"]["words"]}}
    assert "the recipe has one task, pos" in fails(capsys, "affinity", write(tmp_path / "one.yaml", one))
    path = write(tmp_path / "two.yaml", recipe)
    frozen = ["--set", "freeze=[encoder]"]
    assert "The tasks share no trained parameters" in fails(capsys, "affinity", path, *frozen)
    assert "--output" in fails(capsys, "affinity", path, "--output", path)
    with pytest.raises(SystemExit) as stopped:
        main(["affinity", path, "--models", "0"])
    assert stopped.value.code == 2


def test_the_command_prints_the_matrix_and_writes_a_page_and_recipes(two_tasks, tmp_path, capsys):
    recipe = two_tasks(tmp_path)
    path = write(tmp_path / "two.yaml", recipe)
    assert main(["affinity", path, "--steps", "6", "--models", "2", "--output", str(tmp_path / "found")]) == 0
    printed = capsys.readouterr().out
    assert printed.index("6 steps with 6 measurements") < printed.index("helps →  pos")
    assert "predicted gain (percent of the loss)" in printed
    assert printed.splitlines()[-1].endswith("found/recipe.yaml " + str(tmp_path / "found" / "groups.yaml"))
    names = {each.name for each in (tmp_path / "found").iterdir()}
    assert {"affinity.json", "affinity.html", "groups.yaml", "group-1.yaml", "recipe.yaml"} <= names
