"""The training of a recipe in Python, as the command line runs it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toys import SAMPLE_CORPUS

from mtl_nlp import MultitaskTrainer, Recipe, TrainedRun, train
from mtl_nlp.data.conll import read_conll
from mtl_nlp.errors import CheckpointError, RecipeError, RunError
from mtl_nlp.evaluation.predictions import read_predictions
from mtl_nlp.hub.loading import load_model
from mtl_nlp.run_folder import read_results
from mtl_nlp.training.precision import reason_for_bf16
from mtl_nlp.training.progress import number_format_of


@pytest.fixture
def recipe(quick_recipe: dict[str, Any]) -> dict[str, Any]:
    quick_recipe["training"] |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "disable_tqdm": True}
    return quick_recipe


def test_a_training_returns_its_folder_results_and_model_and_shows_nothing(recipe, capfd):
    done = train(Recipe.from_dict(recipe))
    assert isinstance(done, TrainedRun)
    assert done.folder == Path(recipe["output_dir"])
    assert json.loads((done.folder / "results.json").read_text()) == json.loads(json.dumps(done.results))
    saved = load_model(str(done.folder))
    assert all(value.equal(saved.state_dict()[name]) for name, value in done.model.state_dict().items())
    assert "task" not in capfd.readouterr().out


def test_plan_scores_and_place_of_the_model_are_shown_in_order(recipe):
    shown: list[str] = []
    done = train(Recipe.from_dict(recipe), say=shown.append)
    assert len(shown) == 3
    assert "label space" in shown[0]
    assert f"mtl_score   {done.results['mtl_score']:.4f}" in shown[1]
    assert shown[2] == f"The model is in {done.folder}. Try it: mtl-nlp predict {done.folder} FILE"


def test_every_prediction_of_the_held_out_split_is_kept_with_the_words_seen_in_training(recipe):
    done = train(Recipe.from_dict(recipe))
    found = read_predictions(done.folder / "predictions.jsonl")
    assert {task: len(lines) for task, lines in found.items()} == {"pos": 120, "ner": 120, "topic": 120}
    pos = found["pos"]
    right = [a == b for line in pos for a, b in zip(line.gold, line.prediction, strict=True)]
    assert sum(right) / len(right) == pytest.approx(done.results["tasks"]["pos"]["accuracy"])
    topic = [line.gold == line.prediction for line in found["topic"]]
    assert sum(topic) / len(topic) == pytest.approx(done.results["tasks"]["topic"]["accuracy"])
    files = (SAMPLE_CORPUS / "train").glob("*.conll")
    known = {word for file in files for row in read_conll(file, ["tokens", "upos", "ner"]) for word in row["tokens"]}
    assert [line.seen for line in pos] == [[word in known for word in line.tokens] for line in pos]
    assert {True, False} == {flag for line in pos for flag in line.seen}
    assert [line.row for line in pos] == list(range(120))
    assert all(0.0 < score <= 1.0 for line in pos for score in line.score)


def test_a_run_is_resumed_overwritten_or_refused(recipe):
    parsed = Recipe.from_dict(recipe)
    with pytest.raises(CheckpointError):
        train(parsed, resume=True)
    done = train(parsed)
    with pytest.raises(RecipeError, match="--overwrite"):
        train(parsed)
    shown: list[str] = []
    del recipe["training"]["precision"]  # the number format of the checkpoint is kept
    again = train(Recipe.from_dict(recipe), resume=True, say=shown.append)
    assert "note: --resume: resuming from checkpoint-2" in shown
    is_fast = reason_for_bf16(use_cpu=True) is not None
    assert ("note: --resume: training.precision: fp32, as in the checkpoint" in shown) == is_fast
    assert number_format_of(again.folder / "checkpoint-2") == "fp32"
    assert again.results["tasks"] == done.results["tasks"]
    recipe["training"]["max_steps"] = 1
    anew = train(Recipe.from_dict(recipe), overwrite=True)
    assert anew.results["training"]["steps"] == 1
    assert [path.name for path in anew.folder.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_training_that_is_stopped_saves_no_model(recipe):
    @contextlib.contextmanager
    def stopping(trainer: MultitaskTrainer) -> Iterator[None]:
        trainer.request_stop()
        yield

    with pytest.raises(RunError, match=r"training was stopped before its end\. .*checkpoint-1"):
        train(Recipe.from_dict(recipe), watch=stopping)
    assert not (Path(recipe["output_dir"]) / "config.json").exists()
    assert train(Recipe.from_dict(recipe), resume=True).results["training"]["steps"] == 2


def test_words_of_a_streamed_training_split_are_unknown(recipe):
    recipe["datasets"]["sample"]["streaming"] = True
    done = train(Recipe.from_dict(recipe))
    found = read_predictions(done.folder / "predictions.jsonl")
    assert {line.seen is None for lines in found.values() for line in lines} == {True}


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_the_training_log_holds_all_entries_also_after_a_resume(recipe):
    recipe["training"] |= {"max_steps": 4, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
    done = train(Recipe.from_dict(recipe))
    complete = log_of(done.folder)
    assert [entry["step"] for entry in complete if "loss" in entry] == [1, 2, 3, 4]
    assert [entry["step"] for entry in complete if "eval_ner_f1" in entry] == [2, 4]
    assert {"loss_pos", "padding", "learning_rate"} <= complete[0].keys()
    for name in ("training_log.jsonl", "config.json", "results.json", "model.safetensors"):
        (done.folder / name).unlink()
    shutil.rmtree(done.folder / "checkpoint-4")
    shutil.rmtree(done.folder / "checkpoint-3")
    again = train(Recipe.from_dict(recipe), resume=True)

    def losses(entries: list[dict[str, Any]]) -> list[tuple[int, float]]:
        return [
            (entry["step"], entry.get("loss", entry.get("eval_loss"))) for entry in entries if "train_loss" not in entry
        ]

    assert losses(log_of(again.folder)) == losses(complete)
    for key in ("rows", "encoder_passes", "best"):
        assert again.results["training"][key] == done.results["training"][key]


def test_results_describe_the_work_and_the_size_of_the_model(recipe):
    recipe["training"] |= {"eval_strategy": "steps", "eval_steps": 1}
    done = train(Recipe.from_dict(recipe))
    found = done.results["training"]
    assert found["rows"] == found["encoder_passes"] == found["mixture"]["sample"]["drawn"] == 16
    assert found["seconds"] > 0
    assert found["parameters"] == sum(parameter.numel() for parameter in done.model.parameters())
    assert found["bytes"] == (done.folder / "model.safetensors").stat().st_size
    assert set(found["best"]) == {"pos", "ner", "topic"}
    assert found["best"]["topic"]["kept_step"] == 2
    assert read_results(done.folder / "results.json")["training"] == json.loads(json.dumps(found))
