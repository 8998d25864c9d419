from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from command_line import fails, write
from toys import sample_recipe

from mtl_nlp.cli.main import main
from mtl_nlp.evaluation.predictions import Prediction, read_predictions
from mtl_nlp.training.folder import locked


def test_training_leaves_model_tokenizer_recipe_and_results(trained):
    names = {path.name for path in (trained / "run").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "results.json", "README.md"}
    assert "predictions.jsonl" in names
    assert "training_args.bin" not in names
    results = json.loads((trained / "run" / "results.json").read_text())
    assert list(results) == ["split", "tasks", "mtl_score", "frames", "training", "provenance"]
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


def scores_of(line: Prediction) -> list[float]:
    return line.score if isinstance(line.score, list) else [line.score]


def without_score(line: Prediction) -> Prediction:
    return dataclasses.replace(line, seen=None, score=None)


def test_predictions_of_any_split_are_written_on_request(trained, tmp_path, capsys):
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    evaluation = ["evaluate", str(run), "--recipe", str(trained / "recipe.yaml"), "--output", str(tmp_path / "s.json")]
    of_training = read_predictions(run / "predictions.jsonl")
    assert main([*evaluation, "--predictions", str(run / "predictions.jsonl")]) == 0
    assert f"The predictions are in {run / 'predictions.jsonl'}." in capsys.readouterr().out
    again = read_predictions(run / "predictions.jsonl")
    assert all(line.seen is not None for line in of_training["pos"])
    for task, lines in of_training.items():
        assert [without_score(line) for line in again[task]] == [without_score(line) for line in lines]
        # The batches of an evaluation in training are larger, and scores differ by rounding.
        found, before = ([score for line in each for score in scores_of(line)] for each in (again[task], lines))
        assert found == pytest.approx(before, abs=1e-5)
    assert main([*evaluation, "--split", "validation", "--predictions", str(tmp_path / "p.jsonl")]) == 0
    assert {line.split for line in read_predictions(tmp_path / "p.jsonl")["ner"]} == {"validation"}


def test_predictions_replace_no_file_that_the_command_reads_or_writes(trained, tmp_path, capsys):
    recipe, run = trained / "recipe.yaml", trained / "run"
    evaluation = ["evaluate", str(run), "--recipe", str(recipe), "--output", str(tmp_path / "s.json"), "--predictions"]
    for file in (recipe, run / "model.safetensors"):
        assert f"--predictions {file}: the command reads this file" in fails(capsys, *evaluation, str(file))
    assert "the scores are written to this file" in fails(capsys, *evaluation, str(tmp_path / "s.json"))
    assert "--predictions /no/file: should be a file" in fails(capsys, *evaluation, "/no/file")
    assert not list(tmp_path.iterdir())


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
    assert "no row of the split 'test' or 'validation' has a label" in error
    error = fails(capsys, "evaluate", str(trained / "run"), "--recipe", path, "--output", output, "--split", "test")
    assert "no row of the split 'test' has a label. Choose a different --split." in error


# The folder of a run


def train(recipe: Path, *arguments: str, **overrides: object) -> list[str]:
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
    return ["train", str(recipe), *arguments, *settings]


def test_a_second_training_in_the_folder_needs_a_choice(trained, tmp_path, capsys):
    run, recipe = tmp_path / "run", trained / "recipe.yaml"
    saving = {"output_dir": run, "training__save_strategy": "steps", "training__save_steps": 1}
    assert main(train(recipe, **saving)) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    error = fails(capsys, *train(recipe, **saving))
    assert f"output_dir: {run} holds the run of an earlier training (a trained model, checkpoint-2)." in error
    assert "--resume" in error
    assert "--overwrite" in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(train(recipe, "--overwrite", output_dir=run, training__max_steps=1)) == 0
    assert not list(run.glob("checkpoint-*"))
    assert json.loads((run / "results.json").read_text())["training"]["steps"] == 1
    assert "max_steps: 1\n" in (run / "recipe.yaml").read_text()
    with pytest.raises(SystemExit):
        main(train(recipe, "--overwrite", "--resume", output_dir=run))


def test_a_training_in_a_pipe_says_what_it_does(trained, tmp_path, capsys):
    capsys.readouterr()
    assert main(train(trained / "recipe.yaml", output_dir=tmp_path / "run", training__max_steps=1)) == 0
    printed = capsys.readouterr()
    assert (printed.err, "\r" in printed.out) == ("", False)
    lines = iter(printed.out.splitlines())
    assert next(lines) == f"{trained / 'recipe.yaml'}: loading the libraries"
    for start in (
        "loading the tokenizer of ",
        "loading dataset sample",
        "tokenizing sample/train: 504 rows",
        "encoder: ",
        "building the model from ",
        "training: 1 step",
        "trained 1 step in ",
        "The model is in ",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert main(["plan", str(trained / "recipe.yaml"), "--set", f"output_dir={tmp_path / 'other'}"]) == 0
    assert capsys.readouterr().out.startswith("encoder: ")


def test_an_invalid_recipe_overwrites_nothing(trained, tmp_path, capsys):
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    (run / "checkpoint-2").mkdir()
    before = sorted(run.rglob("*"))
    for setting in ({"adapters": "{target_modules: [none]}"}, {"training__eval_strategy": "steps", "max_length": 9}):
        setting = {"datasets__sample__columns": "[tokens, x, y]", **setting}
        fails(capsys, *train(trained / "recipe.yaml", "--overwrite", output_dir=run, **setting))
    assert set(run.rglob("*")) - set(before) <= {run / ".mtl_nlp.lock"}
    assert set(before) <= set(run.rglob("*"))


@pytest.mark.parametrize("choice", [(), ("--overwrite",)])
def test_the_folder_of_the_recipe_is_never_the_folder_of_the_run(trained, tmp_path, capsys, choice):
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(trained / "recipe.yaml", recipe)
    before = recipe.read_bytes()
    error = fails(capsys, *train(recipe, *choice, output_dir="."))
    assert f"output_dir: {tmp_path} holds files that do not belong to a run, such as recipe.yaml." in error
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    assert recipe.read_bytes() == before


@pytest.mark.parametrize("choice", [(), ("--overwrite",), ("--resume",)])
def test_a_run_does_not_overwrite_the_model_it_starts_from(trained, tmp_path, capsys, choice):
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    encoder = Path(shutil.copytree(yaml.safe_load((trained / "recipe.yaml").read_text())["encoder"], tmp_path / "bert"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, start in ((run, ("--from", str(run))), (encoder, ("--set", f"encoder={encoder}"))):
        error = fails(capsys, *train(trained / "recipe.yaml", *choice, *start, output_dir=folder))
        assert f"output_dir: {folder} holds the encoder {folder}, which the run would overwrite." in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_trainings_do_not_share_a_folder(trained, tmp_path, capsys):
    child = os.fork()
    if child == 0:
        with locked(tmp_path / "run"):
            (tmp_path / "started").touch()
            time.sleep(120)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    try:
        error = fails(capsys, *train(trained / "recipe.yaml", output_dir=tmp_path / "run"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert f"output_dir: a different run is training in {tmp_path / 'run'}." in error


def test_the_scores_of_a_model_on_the_hub_are_only_printed(hub, online, pushed_run, tmp_path):
    assert online.command("push", str(pushed_run), "ada/scored").status == 0
    recipe = str(pushed_run.parent / "recipe.yaml")
    finished = online.command("evaluate", "ada/scored", "--recipe", recipe)
    assert finished.status == 0, finished.stderr
    assert "mtl_score" in finished.stdout
    assert not (online.folder / "results.json").exists()
    output = str(tmp_path / "scores.json")
    finished = online.command("evaluate", "ada/scored", "--recipe", recipe, "--output", output)
    assert finished.status == 0, finished.stderr
    assert finished.stdout.endswith(f"The scores are in {output}.\n")
    assert json.loads(Path(output).read_text())["split"] == "test"


def test_all_files_of_a_run_have_the_mode_of_the_umask(trained, tmp_path):
    before = os.umask(0o027)
    try:
        assert main(train(trained / "recipe.yaml", output_dir=tmp_path / "run", training__save_strategy="steps")) == 0
    finally:
        os.umask(before)
    modes = {str(path): path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {path: mode for path, mode in modes.items() if mode != 0o640} == {}


def test_training_leaves_a_report_on_what_is_known(trained):
    page = (trained / "run" / "report.html").read_text(encoding="utf-8")
    assert "Nothing is known yet about the effect of sharing" in page
    assert "Scores on test" in page
    assert "Where the answers are right and wrong" in page
