from __future__ import annotations

import json
import shutil

import pytest
import yaml
from command_line import fails, write
from toys import sample_recipe

from mtl_nlp.cli.main import main


def test_training_leaves_model_tokenizer_recipe_and_results(trained):
    names = {path.name for path in (trained / "run").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "results.json", "README.md"}
    assert "training_args.bin" not in names
    results = json.loads((trained / "run" / "results.json").read_text())
    assert list(results) == ["split", "tasks", "mtl_score", "training", "provenance"]
    assert results["training"]["steps"] > 0
    assert results["training"]["mixture"]["sample"]["probability"] == 1.0
    assert results["split"] == "test"
    assert {task: set(scores) for task, scores in results["tasks"].items()} == {
        "pos": {"accuracy"},
        "ner": {"f1", "precision", "recall"},
        "topic": {"accuracy", "macro_f1"},
    }
    assert set(results["provenance"]) == {"mtl_nlp", "versions", "commit", "recipe_sha256", "data_fingerprints"}


def test_evaluation_prints_and_writes_the_scores_of_training(trained, tmp_path, capsys):
    arguments = ["evaluate", str(trained / "run"), "--recipe", str(trained / "run" / "recipe.yaml")]
    assert main([*arguments, "--output", str(tmp_path / "again.json")]) == 0
    first = json.loads((trained / "run" / "results.json").read_text())
    again = json.loads((tmp_path / "again.json").read_text())
    assert (again["tasks"], again["mtl_score"]) == (first["tasks"], first["mtl_score"])
    printed = capsys.readouterr().out
    assert f"{first['tasks']['pos']['accuracy']:.4f}" in printed
    assert f"mtl_score   {first['mtl_score']:.4f}" in printed


def test_a_plan_is_printed_and_nothing_is_written(trained, tmp_path, capsys):
    output = tmp_path / "none"
    assert main(["plan", str(trained / "recipe.yaml"), "--set", f"output_dir={output}"]) == 0
    assert "label space" in capsys.readouterr().out
    assert not output.exists()


def test_evaluation_rewrites_the_card_unless_it_was_edited(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    evaluation = ["evaluate", str(run), "--recipe", str(trained / "recipe.yaml"), "--split"]
    assert "| task | test score |" in (run / "README.md").read_text()
    assert main([*evaluation, "validation"]) == 0
    renewed = (run / "README.md").read_text()
    assert "| task | validation score |" in renewed
    assert "| sample | conll (test, train, validation) | pos, ner, topic | 504 | 1.0000 |" in renewed
    (run / "README.md").write_text(renewed + "My own words.\n")
    assert main([*evaluation, "test"]) == 0
    assert (run / "README.md").read_text() == renewed + "My own words.\n"
    assert json.loads((run / "results.json").read_text())["split"] == "test"


def test_evaluation_with_output_does_not_change_the_card(trained, tmp_path):
    before = (trained / "run" / "README.md").read_bytes()
    recipe, output = str(trained / "recipe.yaml"), str(tmp_path / "x.json")
    assert (
        main(["evaluate", str(trained / "run"), "--recipe", recipe, "--split", "validation", "--output", output]) == 0
    )
    assert (trained / "run" / "README.md").read_bytes() == before


def test_evaluation_creates_only_its_results(pushed_run, online, hub, encoder_folder, tmp_path):
    recipe = sample_recipe(encoder_folder("bert"), tmp_path / "never", max_steps=2)
    recipe["training"] |= {
        "push_to_hub": True,
        "hub_model_id": "ada/never-trained",
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "report_to": ["tensorboard"],
    }
    path = write(tmp_path / "recipe.yaml", recipe)
    before = {file: file.read_bytes() for file in pushed_run.rglob("*") if file.is_file()}
    repositories, requests = dict(hub.repositories), len(hub.requests)
    (tmp_path / "scores").mkdir()
    finished = online.command(
        "evaluate", str(pushed_run), "--recipe", path, "--output", str(tmp_path / "scores" / "results.json")
    )
    assert finished.status == 0, finished.stderr
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")} == {
        "recipe.yaml",
        "scores",
        "scores/results.json",
    }
    assert {file: file.read_bytes() for file in pushed_run.rglob("*") if file.is_file()} == before
    assert hub.repositories == repositories
    assert not [request for request in hub.requests[requests:] if not request.startswith(("GET", "HEAD"))]


@pytest.mark.parametrize("output", ["/proc/results.json", "/no/folder/results.json"])
def test_evaluation_reports_an_output_that_cannot_be_written(trained, capsys, output):
    error = fails(
        capsys, "evaluate", str(trained / "run"), "--recipe", str(trained / "recipe.yaml"), "--output", output
    )
    assert "--output" in error
    assert output in error


def test_evaluation_reports_a_split_without_labels(trained, tmp_path, capsys):
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    recipe["tasks"] = {"topic": recipe["tasks"]["topic"]}
    sample = recipe["datasets"]["sample"]
    unlabelled = write(tmp_path / "test.jsonl", '{"tokens": ["Ada"], "topic": null}\n')
    sample["data_files"] = {"test": unlabelled}
    sample |= {"path": "json", "labels": {"topic": "topic"}}
    del sample["columns"]
    path = write(tmp_path / "recipe.yaml", recipe)
    output = str(tmp_path / "results.json")
    error = fails(capsys, "evaluate", str(trained / "run"), "--recipe", path, "--output", output)
    assert "no row of the split 'test' has a label" in error
