"""A diverged run ends with exit code 1 and one line, and no number that is not finite is written."""

from __future__ import annotations

import json
import math

import pytest
from command_line import write
from small_datasets import write as write_rows
from toy_splits import BAD_ROW

from mtl_nlp.cli.main import main
from mtl_nlp.errors import RunError


@pytest.fixture
def recipe(encoder_folder, tmp_path) -> dict:
    """A recipe for a number per text, with one score that the test may change."""
    rows = [{"text": "ada lives in paris " * (row % 3 + 1), "y": float(row % 4)} for row in range(12)]
    write_rows(tmp_path / "good.jsonl", *rows)
    write_rows(tmp_path / "bad.jsonl", *rows[:BAD_ROW], {**rows[BAD_ROW], "y": 3e38}, *rows[BAD_ROW + 1 :])
    write_rows(tmp_path / "worse.jsonl", *rows[:BAD_ROW], {**rows[BAD_ROW], "y": 1e39})
    files = {split: str(tmp_path / "good.jsonl") for split in ("train", "validation", "test")}
    return {
        "encoder": encoder_folder("bert"),
        "output_dir": str(tmp_path / "run"),
        "tasks": {"score": {"type": "regression", "normalize": False}},
        "datasets": {
            "d": {"path": "json", "data_files": files, "inputs": {"text": "text"}, "labels": {"score": "y"}}
        },
        "training": {
            "num_train_epochs": 2, "per_device_train_batch_size": 1, "logging_strategy": "no", "use_cpu": True,
            "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2,
        },
    }  # fmt: skip


def test_label_that_float32_cannot_hold_is_refused_before_training(recipe, tmp_path, capsys):
    recipe["datasets"]["d"]["data_files"]["train"] = str(tmp_path / "worse.jsonl")
    assert main(["train", write(tmp_path / "recipe.yaml", recipe)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"d/train, row {BAD_ROW}, column 'y': expected numbers of at most 3.4e+38, the limit of float32; " in line
    assert not (tmp_path / "run").exists()


def test_command_ends_with_exit_code_1_and_keeps_the_earlier_checkpoints(recipe, tmp_path, capsys):
    recipe["datasets"]["d"]["data_files"]["train"] = str(tmp_path / "bad.jsonl")
    assert main(["train", write(tmp_path / "recipe.yaml", recipe)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("mtl-nlp: error: Training has diverged: at step ")
    step = int(line.split("at step ")[1].split(",")[0])
    assert f"the loss of task 'score' became infinite or NaN. The step had row {BAD_ROW} of d/train. " in line
    assert f"resume from {tmp_path / 'run' / f'checkpoint-{step - 1}'} (--resume)" in line
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {name for name in names if name.startswith("checkpoint-")} == {
        f"checkpoint-{number}" for number in (step - 2, step - 1)
    }
    assert not names & {"model.safetensors", "results.json", "README.md"}


def test_mended_rows_train_on_from_the_last_checkpoint(recipe, tmp_path, capsys):
    recipe["datasets"]["d"]["data_files"]["train"] = str(tmp_path / "bad.jsonl")
    assert main(["train", write(tmp_path / "recipe.yaml", recipe)]) == 1
    (tmp_path / "bad.jsonl").write_bytes((tmp_path / "good.jsonl").read_bytes())
    assert main(["train", write(tmp_path / "recipe.yaml", recipe), "--resume"]) == 0
    json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("rate", ["1e30", ".nan", "1e39"])
def test_learning_rate_that_is_too_high_ends_the_command(recipe, tmp_path, capsys, rate):
    recipe["training"] |= {"logging_strategy": "steps", "logging_steps": 5, "max_grad_norm": 0.0, "save_strategy": "no"}
    overrides = ["--set", f"training.learning_rate={rate}"]
    assert main(["train", write(tmp_path / "recipe.yaml", recipe), *overrides]) == (1 if rate == "1e30" else 2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "Training has diverged" in line if rate == "1e30" else "training.learning_rate: should be" in line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_trainer_in_python_raises_the_same_error(trainer_of, with_bad_row):
    trainer = trainer_of(with_bad_row, max_steps=12, per_device_train_batch_size=1)
    with pytest.raises(RunError, match=f"the loss of task 'score' became .* row {BAD_ROW} of d/train"):
        trainer.train()


def test_a_loss_in_the_log_that_is_not_finite_ends_the_run_whatever_its_cause(trainer_of, disjoint):
    trainer = trainer_of(disjoint, max_steps=2)
    with pytest.raises(RunError, match=r"by step 0, loss, pull became infinite or NaN"):
        trainer.log({"loss": math.nan, "pull": math.inf, "grad_norm": math.inf, "learning_rate": 0.1})
    assert trainer.state.log_history == []
    trainer.log({"loss": 1.0, "grad_norm": math.inf})  # a step that fp16 skips
    (entry,) = trainer.state.log_history
    assert (entry["loss"], entry["grad_norm"]) == (1.0, None)


def test_evaluation_that_is_not_finite_is_logged_as_none(trainer_of, with_bad_row, disjoint, tmp_path):
    texts = {"texts": disjoint["texts"]}
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = trainer_of(texts, with_bad_row, load_best_model_at_end=True, metric_for_best_model="loss", **settings)
    trainer.train()
    (entry, _) = (entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert entry["eval_loss"] is None
    assert entry["eval_score_pearson"] is not None
    for path in sorted((tmp_path / "run").glob("checkpoint-*/trainer_state.json")):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert math.isinf(trainer.evaluate()["eval_loss"])
