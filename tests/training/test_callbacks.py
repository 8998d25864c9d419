from __future__ import annotations

import itertools

import pytest
import torch
from toy_splits import TASKS
from trainers import adapted_model, assert_same_weights, build_model
from transformers.trainer_callback import TrainerState
from watched_training import Recorder

from mtl_nlp.balancing.static import Static
from mtl_nlp.training.callbacks import CurrentArguments


@pytest.mark.parametrize("accumulation", [1, 2])
def test_adamw_does_not_move_an_idle_head(trainer_of, disjoint, accumulation):
    words = [[0, 1], [2, 3]][:accumulation]
    steps = [[[0, 16], [1, 17]][:accumulation], words, words, [*words[:-1], [18]], words]
    recorder, batches = Recorder(), [batch for step in steps for batch in step]
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(disjoint, batches=batches, callbacks=[recorder], num_train_epochs=1, **settings)
    trainer.train()
    used = {"pos": [True, True, accumulation == 2, True], "topic": [False, False, True, False]}
    used |= {"ner": used["pos"], "score": used["topic"]}
    for number, task in enumerate(TASKS):
        for name in [name for name in trainer.model.state_dict() if name.startswith(f"heads.{number}.")]:
            values = [weights[name] for weights in recorder.weights]
            moved = [not torch.equal(before, after) for before, after in itertools.pairwise(values)]
            assert moved == used[task]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("pull", [0.0, 0.1])
def test_adamw_moves_an_idle_adapter_by_the_pull_only(trainer_of, disjoint, accumulation, pull):
    words = [[0, 1], [2, 3]][:accumulation]
    steps = [[[0, 16], [1, 17]][:accumulation], words, words, [*words[:-1], [18]], words]
    recorder, batches = Recorder(), [batch for step in steps for batch in step]
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(
        disjoint, batches=batches, model=adapted_model(), callbacks=[recorder], num_train_epochs=1,
        adapter_pull=pull, **settings,
    )  # fmt: skip
    trainer.train()
    used = {"shared": [True] * 4, "pos": [True, True, accumulation == 2, True], "topic": [False, False, True, False]}
    names = [name for name in trainer.model.state_dict() if "lora_" in name]
    for name in names:
        values = [weights[name] for weights in recorder.weights]
        moved = [not torch.equal(before, after) for before, after in itertools.pairwise(values)]
        assert moved == ([True] * 4 if pull else used[name.split(".")[-2].removeprefix("task_")])
    assert len(names) == 3 * 2 * 12


# Resumed runs


class Places(Static):
    """Weights that record the places at which they are chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[float, int, int]] = []

    def weights(self, step):
        self.places.append((step.progress, step.epoch, step.number))
        return super().weights(step)


@pytest.mark.parametrize(("step", "epoch"), [(5, 0), (7, 1), (10, 1)])
def test_evaluation_before_the_first_step_of_a_resumed_run_has_the_place_of_the_last_step(
    trainer_of, disjoint, tmp_path, step, epoch
):
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "save_steps": step}
    trainer_of(disjoint, save_strategy="steps", **settings).train()
    weighting = Places()
    resumed = trainer_of(disjoint, disjoint, loss_weighting=weighting, eval_on_start=True, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
    assert weighting.places[0] == ((step - 1) / 15, epoch, step - 1)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_run(trainer_of, disjoint, tmp_path, accumulation):
    settings = {
        "num_train_epochs": 3, "per_device_train_batch_size": 8 // accumulation, "learning_rate": 0.01, "save_steps": 1,
        "gradient_accumulation_steps": accumulation, "save_strategy": "steps", "head_learning_rate": 0.02,
    }  # fmt: skip
    dropout = {"hidden_dropout_prob": 0.2}
    whole = trainer_of(disjoint, model=build_model(**dropout), **settings)
    whole.train()
    assert whole.state.global_step == 15
    for step in (5, 7, 10):  # epoch border, middle of the second epoch, epoch border
        resumed = trainer_of(disjoint, model=build_model(**dropout), **{**settings, "save_strategy": "no"})
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(resumed.model, whole.model)


def test_checkpoint_at_the_end_of_an_epoch_has_the_evaluation_of_the_epoch(trainer_of, disjoint, tmp_path):
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "eval_strategy": "epoch", "save_steps": 5}
    trainer = trainer_of(disjoint, disjoint, save_strategy="steps", **settings)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [5, 10]
    state = TrainerState.load_from_json(str(tmp_path / "run" / "checkpoint-5" / "trainer_state.json"))
    assert [entry["step"] for entry in state.log_history if "eval_loss" in entry] == [5]
    for more in ({"save_strategy": "epoch"}, {"save_steps": 3, "save_strategy": "steps"}, {"eval_delay": 2}):
        trainer = trainer_of(disjoint, disjoint, **{"save_strategy": "steps", **settings, **more})
        trainer.train()
        steps = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
        assert steps == ([10] if "eval_delay" in more else [5, 10])


@pytest.mark.parametrize(("metric", "best"), [("loss", 0.3), ("eval_mtl_score", 0.8), ("pos_accuracy", 0.3)])
def test_a_resumed_run_compares_values_of_its_current_metric(trainer_of, disjoint, metric, best):
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = trainer_of(disjoint, disjoint, metric_for_best_model=metric, early_stopping_patience=2, **settings)
    history = [
        {"step": 1, "eval_loss": 0.4},
        {"step": 2, "loss": 1.0},
        {"step": 2, "eval_loss": 0.3, "eval_mtl_score": 0.8},
    ]
    state = TrainerState(best_global_step=2, best_metric=0.3, log_history=history, max_steps=4)
    CurrentArguments(trainer.callback_handler).on_train_begin(trainer.args, state, trainer.control)
    assert state.best_metric == best
    assert "EarlyStoppingCallback" in state.stateful_callbacks  # the checkpoint had no patience
