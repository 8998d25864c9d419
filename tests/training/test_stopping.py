from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from mtl_nlp.training.completeness import checkpoint_problem


class StopAt(TrainerCallback):
    """Callback that requests a stop at the end of a step, so that the next step is the last."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.trainer = None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.trainer.request_stop()


@pytest.fixture
def stopped_at(trainer_of, disjoint):
    def train(step: int, resume: bool = False, **arguments):
        callback = StopAt(step)
        trainer = trainer_of(
            disjoint,
            disjoint,
            callbacks=[callback],
            use_cpu=True,
            per_device_train_batch_size=4,
            max_steps=8,
            **arguments,
        )
        callback.trainer = trainer
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


def test_stopped_training_saves_a_checkpoint_and_resumes_to_the_same_weights(stopped_at, tmp_path):
    reference = stopped_at(99).model.state_dict()
    stopped = stopped_at(3)
    assert stopped.is_stopped
    assert stopped.state.global_step == 4
    assert checkpoint_problem(tmp_path / "run" / "checkpoint-4") is None
    resumed = stopped_at(99, resume=True)
    assert not resumed.is_stopped
    assert all(torch.equal(value, reference[name]) for name, value in resumed.model.state_dict().items())


def test_stopped_training_keeps_its_weights_and_checkpoints(stopped_at, tmp_path):
    best = {"load_best_model_at_end": True, "save_total_limit": 1, "metric_for_best_model": "loss"}
    trainer = stopped_at(4, eval_strategy="steps", save_strategy="steps", eval_steps=2, save_steps=2, **best)
    assert trainer.state.best_model_checkpoint is not None
    last = load_file(tmp_path / "run" / "checkpoint-5" / "model.safetensors")
    assert all(torch.equal(last[name], value) for name, value in trainer.model.state_dict().items() if name in last)
    assert checkpoint_problem(Path(trainer.state.best_model_checkpoint)) is None


def test_request_after_the_last_step_does_not_stop_the_next_training(stopped_at):
    trainer = stopped_at(8)
    assert not trainer.is_stopped
    trainer.train()
    assert trainer.state.global_step == 8


def test_save_only_model_writes_no_checkpoint_at_a_stop(stopped_at, tmp_path):
    assert stopped_at(3, save_only_model=True).is_stopped
    assert not list((tmp_path / "run").glob("checkpoint-*"))
