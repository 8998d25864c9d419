from __future__ import annotations

import warnings

import pytest
import yaml

from mtl_nlp.cli.main import main
from mtl_nlp.cli.options import quiet_libraries, writable_file
from mtl_nlp.errors import DataError


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_has_at_least_one_text(capsys, size):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "model", "file", "--batch-size", size])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"should be an integer of at least 1. Found '{size}'" in line


def test_unusable_output_folder_is_reported_before_training(quick_recipe, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(quick_recipe | {"output_dir": str(tmp_path / "file" / "run")}))
    assert main(["train", str(recipe)]) == 2
    assert "output_dir" in capsys.readouterr().err


def test_an_output_is_not_a_file_that_the_command_reads(tmp_path):
    model, recipe = tmp_path / "model", tmp_path / "recipe.yaml"
    model.mkdir()
    for file in (recipe, model / "config.json"):
        file.touch()
        with pytest.raises(DataError, match=f"--output {file}: the command reads this file. Name a different file"):
            writable_file(str(file), str(recipe), str(model), "ada/model")
    assert writable_file(str(model / "answers.jsonl"), str(recipe), str(model)) == model / "answers.jsonl"


def test_a_note_of_a_library_for_programmers_is_not_printed():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn_explicit("deprecated", FutureWarning, "training_args.py", 1, "transformers.training_args")
        warnings.warn_explicit("deprecated", FutureWarning, "my_metric.py", 1, "my_metric")
    assert [each.filename for each in caught] == ["my_metric.py"]
