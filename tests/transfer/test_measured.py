from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.transfer.measured import Measured, Model, measure_finished, measure_predictions, tasks_of
from mtl_nlp.transfer.sides import FinishedRun, FinishedSide, PredictionsSide

TRAINING = {"encoder_passes": 100, "seconds": 2.5, "parameters": 10, "bytes": 40}


def line(task: str, row: int, gold: object = "a", prediction: object = "a") -> dict:
    return {
        "task": task,
        "dataset": "d",
        "split": "test",
        "row": row,
        "text": "x",
        "gold": gold,
        "prediction": prediction,
    }


def finished(saved: Path, folder: Path, split: str = "test", **training: float) -> FinishedRun:
    folder.mkdir()
    (folder / "config.json").write_bytes((saved / "config.json").read_bytes())
    scores = {"topic": {"accuracy": 0.5, "macro_f1": 0.25}, "pos": {"accuracy": 0.75}}
    results = {"split": split, "tasks": scores, "mtl_score": 0.6, "training": {**TRAINING, **training}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "predictions.jsonl").write_text(json.dumps(line("topic", 0)) + "\n")
    return FinishedRun(folder, ["topic"], split, "k", int(folder.name))


def test_a_side_has_the_scores_predictions_and_costs_of_its_runs(saved, tmp_path):
    runs = [[finished(saved, tmp_path / "1")], [finished(saved, tmp_path / "2", seconds=3.5)]]
    side = measure_finished(FinishedSide("x", "X", runs))
    assert list(side.predictions) == ["1", "2"]
    assert side.tasks == ["topic"]
    assert side.scores["1"] == {"topic": {"accuracy": 0.5, "macro_f1": 0.25}}
    assert side.cost(12.0) == {
        "models": 1,
        "parameters": 10,
        "bytes": 40,
        "training_passes": 100,
        "training_seconds": 3.0,
        "answering_passes": 1,
        "ms_per_1000_texts": 12.0,
    }
    tasks = tasks_of([side])
    assert list(tasks) == ["topic"]
    assert tasks["topic"].num_labels == 6


def test_costs_that_a_run_does_not_say_are_missing(saved, tmp_path):
    model = Model(saved, ["topic"], "", {"split": "test", "tasks": {}})
    side = Measured("x", "X", {"1": [model]}, {"1": {}}, {"1": {}}, "test")
    assert side.cost(None)["training_seconds"] is None


def test_runs_that_were_scored_on_different_splits_are_refused(saved, tmp_path):
    runs = [[finished(saved, tmp_path / "1")], [finished(saved, tmp_path / "2", "validation")]]
    with pytest.raises(CommandError, match=r"the runs of x were scored on different splits: test, validation\."):
        measure_finished(FinishedSide("x", "X", runs))


def test_predictions_and_scores_of_different_splits_are_refused(saved, tmp_path):
    run = finished(saved, tmp_path / "1", "validation")  # `evaluate` without `--predictions` leaves the old file
    with pytest.raises(CommandError, match=r"predictions\.jsonl is of test, and results\.json of validation\."):
        measure_finished(FinishedSide("x", "X", [[run]]))


def test_a_file_of_predictions_is_scored(saved, tmp_path):
    side = measure_finished(FinishedSide("x", "X", [[finished(saved, tmp_path / "1")]]))
    file = tmp_path / "theirs.jsonl"
    file.write_text("".join(json.dumps(line("topic", row, prediction="ab"[row])) + "\n" for row in range(2)))
    measured = measure_predictions(PredictionsSide("theirs", "theirs.jsonl", file), tasks_of([side]))
    assert measured.scores["1"]["topic"]["accuracy"] == 0.5
    assert measured.split == "test"
    assert set(measured.cost(None).values()) == {None}
    file.write_text(json.dumps(line("xyz", 0)) + "\n")
    with pytest.raises(CommandError, match=r"has predictions for 'xyz', and no other side has this task\."):
        measure_predictions(PredictionsSide("theirs", "theirs.jsonl", file), tasks_of([side]))


def test_labels_that_the_task_does_not_have_are_noted(saved, tmp_path):
    side = measure_finished(FinishedSide("x", "X", [[finished(saved, tmp_path / "1")]]))
    label = tasks_of([side])["topic"].labels[0]
    file = tmp_path / "theirs.jsonl"
    file.write_text("".join(json.dumps(line("topic", row, label, [label, "Sports"][row])) + "\n" for row in range(2)))
    measured = measure_predictions(PredictionsSide("theirs", "theirs.jsonl", file), tasks_of([side]))
    assert measured.notes == ["theirs predicts labels that topic does not have (Sports); each of them counts as wrong"]


def test_a_prediction_that_is_too_short_is_named(saved, tmp_path):
    run = finished(saved, tmp_path / "1")._replace(tasks=["pos"])
    tasks = tasks_of([measure_finished(FinishedSide("x", "X", [[run]]))])
    words = {"task": "pos", "dataset": "d", "split": "test", "row": 7, "tokens": ["a", "b"], "gold": ["X", "X"]}
    file = tmp_path / "theirs.jsonl"
    file.write_text(json.dumps({**words, "prediction": ["X"]}) + "\n")
    with pytest.raises(DataError, match=r"task 'pos', dataset 'd', row 7: `prediction` should .* 2 words\. Found 1\."):
        measure_predictions(PredictionsSide("theirs", "theirs.jsonl", file), tasks)
