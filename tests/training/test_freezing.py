"""Tasks whose validation scores fall have the weight 0 from there on."""

from __future__ import annotations

import itertools

import pytest
import torch
from toy_splits import TASKS
from toy_weightings import Attentive
from trainers import adapted_model, assert_same_weights, build_model
from watched_training import Recorder

from mtl_nlp.training.freezing import Frozen, describe_frozen, frozen_tasks

TOPIC = {"topic": TASKS["topic"]}


def history(*scores: float | None) -> list[dict[str, object]]:
    """Return a log with an evaluation of the topic every 100 steps."""
    return [
        entry
        for number, score in enumerate(scores, start=1)
        for entry in ({"step": 100 * number, "loss": 1.0}, {"step": 100 * number, "eval_topic_accuracy": score})
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((), None),
        ((0.5, 0.6, 0.5), None),
        ((0.5, 0.6, 0.5, 0.4), Frozen(400, 200)),
        ((0.5, 0.6, 0.6, 0.6), Frozen(400, 200)),
        ((0.5, 0.4, 0.6, 0.5, 0.7), None),
        ((0.5, 0.4, 0.3, 0.9), Frozen(300, 100)),
        ((0.5, None, None, 0.4, float("nan"), 0.3), Frozen(600, 100)),
        ((-0.5, -0.6, -0.7), Frozen(300, 100)),
        ((0.0, 0.0, 0.0), None),
        ((0.0, 0.0, 0.1, 0.0, 0.0), Frozen(500, 300)),
    ],
)
def test_task_is_frozen_after_evaluations_without_a_new_best(scores, expected):
    found = frozen_tasks(history(*scores), TOPIC, 2)
    assert found == ({} if expected is None else {"topic": expected})
    assert frozen_tasks(history(*scores), TOPIC, None) == {}


def test_later_evaluations_do_not_count():
    log = history(0.6, 0.5, 0.4)
    assert frozen_tasks(log, TOPIC, 2, until=299) == {}
    assert frozen_tasks(log, TOPIC, 2, until=300) == frozen_tasks(log, TOPIC, 2) != {}


def test_sentence_names_both_steps():
    text = describe_frozen("topic", {"step": 400, "best_step": 200})
    assert text.startswith(
        "topic has the weight 0 from step 400 on: until then, its score on validation was best at step 200 ("
    )


SETTINGS = {
    "max_steps": 6, "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1, "learning_rate": 0.01,
    "weight_decay": 0.1, "freeze_patience": 1, "per_device_train_batch_size": 40,
}  # fmt: skip
"""Settings with which some of the tasks are frozen: an evaluation after each step, and a patience of one."""


def own_parameters(model: torch.nn.Module, task: str) -> list[str]:
    head = f"heads.{list(TASKS).index(task)}."
    return [name for name in model.state_dict() if name.startswith(head) or f".task_{task}." in name]


@pytest.mark.parametrize(
    "changes",
    [{}, {"model": "adapted", "adapter_pull": 0.1}, {"loss_weighting": "attentive"}, {"loss_scale": "per_task"}],
)
def test_frozen_task_has_the_weight_0_and_its_head_and_adapter_stay(trainer_of, disjoint, changes):
    recorder, notes = Recorder(), []
    weighting = Attentive(TASKS) if "loss_weighting" in changes else None
    built = adapted_model() if "model" in changes else build_model()
    settings = {**SETTINGS, **changes, "loss_weighting": weighting, "model": built}
    texts = {"texts": disjoint["texts"]}  # a task without evaluations is never frozen
    trainer = trainer_of(disjoint, texts, callbacks=[recorder], **settings)
    trainer.note = notes.append
    trainer.train()
    frozen = frozen_tasks(trainer.state.log_history, TASKS, 1)
    assert frozen.keys() <= {"topic", "score"}
    assert min(each.step for each in frozen.values()) < trainer.state.global_step
    assert trainer.describe_training()["frozen"] == {task: each.to_dict() for task, each in frozen.items()}
    assert sorted(notes) == sorted(describe_frozen(task, each.to_dict()) for task, each in frozen.items())
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    evaluated = {entry["step"]: entry for entry in trainer.state.log_history if "eval_loss" in entry}
    for task in TASKS:
        end = frozen[task].step if task in frozen else SETTINGS["max_steps"]
        weights = [entry[f"weight_{task}"] for entry in logged]
        assert [weight == 0 for weight in weights] == [entry["step"] > end for entry in logged]
        for name in own_parameters(trainer.model, task):
            values = [weights[name] for weights in recorder.weights]
            moved = [not torch.equal(before, after) for before, after in itertools.pairwise(values)]
            assert moved == [step < end for step in range(1, SETTINGS["max_steps"])], name
    if not changes:
        for step, entry in evaluated.items():
            # The evaluation after which a task is frozen still has its weight.
            used = [task for task in ("topic", "score") if task not in frozen or step <= frozen[task].step]
            expected = sum(entry[f"eval_{task}_loss"] for task in used)
            assert entry["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_resumed_run_freezes_the_same_tasks(trainer_of, disjoint, tmp_path):
    settings = {**SETTINGS, "save_strategy": "steps", "save_steps": 1}
    whole = trainer_of(disjoint, disjoint, loss_weighting=Attentive(TASKS), **settings)
    whole.train()
    frozen = frozen_tasks(whole.state.log_history, TASKS, 1)
    assert frozen
    for step in sorted({each.step for each in frozen.values()} | {1, whole.state.global_step - 1}):
        notes = []
        resumed = trainer_of(disjoint, disjoint, loss_weighting=Attentive(TASKS), **{**settings, "save_strategy": "no"})
        resumed.note = notes.append
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(resumed.model, whole.model)
        assert resumed.describe_training()["frozen"] == whole.describe_training()["frozen"]
        told = [note for note in notes if "has the weight 0" in note]
        assert len(told) == sum(each.step > step for each in frozen.values())


def test_training_stops_when_every_task_is_frozen_and_a_resumed_run_takes_no_step(trainer_of, disjoint, tmp_path):
    settings = {**SETTINGS, "learning_rate": 0.0, "freeze_patience": 2, "save_strategy": "steps", "save_steps": 1}
    notes: list[str] = []
    trainer = trainer_of(disjoint, disjoint, **settings)
    trainer.note = notes.append
    trainer.train()
    assert trainer.state.global_step == 3  # the first evaluation is the best, and no later one is better
    assert set(trainer.describe_training()["frozen"]) == set(TASKS)
    assert notes[-1] == "the training stops at step 3, since the weight of every task is 0"
    resumed = trainer_of(disjoint, disjoint, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.state.global_step == 3


def test_evaluation_after_the_training_freezes_no_task(trainer_of, disjoint):
    notes: list[str] = []
    trainer = trainer_of(disjoint, disjoint, **{**SETTINGS, "learning_rate": 0.0, "freeze_patience": 2, "max_steps": 2})
    trainer.note = notes.append
    trainer.train()
    trainer.state.global_step = 3
    trainer.evaluate()
    assert trainer.step.frozen == frozenset()
    assert notes == []
