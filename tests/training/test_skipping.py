"""Shares of the loss that are not finite are left out, and so are steps with such a gradient."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from toy_gradient_methods import PlainSum
from toy_splits import BAD_ROW, TASKS
from toy_weightings import Attentive
from trainers import adapted_model, assert_same_weights, build_model, logs_of
from transformers import TrainerCallback
from watched_training import Recorder

from mtl_nlp.balancing.equal_start import EqualStart
from mtl_nlp.balancing.famo import Famo
from mtl_nlp.balancing.gradnorm import GradNorm
from mtl_nlp.balancing.imtl_l import ImtlL
from mtl_nlp.balancing.uncertainty import Uncertainty
from mtl_nlp.errors import RunError
from mtl_nlp.modeling.loss_multitask import count_step, joint_loss
from mtl_nlp.training.skipping import MOST_IN_A_ROW, describe_skips, gradient_name

BAD = 16 + BAD_ROW
"""The position of the bad row behind the sixteen rows of `words`."""


@pytest.fixture(scope="module")
def mixed(disjoint, with_bad_row) -> dict[str, Any]:
    return {"words": disjoint["words"], "d": with_bad_row["d"]}


def bad_positions(mixed) -> tuple[int, list[int]]:
    """Return the position of the bad row in the mixture, and those of the good rows of its dataset."""
    rows = mixed["d"].windows["row"]
    positions = {row: 16 + number for number, row in enumerate(rows)}
    return positions[BAD_ROW], [place for row, place in positions.items() if row != BAD_ROW]


def gradients_of(model, trainer, batches, left_out) -> dict[str, torch.Tensor]:
    """Return the gradients of the joint loss of micro-batches, without the score in some of these."""
    batches = [trainer.data_collator(trainer.train_dataset.__getitems__(batch)) for batch in batches]
    counts = count_step(batches, TASKS)
    model.train()
    for number, batch in enumerate(batches):
        sums = model(**batch).loss_sums
        kept = {task: value for task, value in sums.items() if task != "score" or number not in left_out}
        joint_loss(kept, counts).backward()
    return {name: p.grad for name, p in model.named_parameters()}


METHODS = {"sum": lambda: None, "gradient method": lambda: PlainSum(TASKS)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("built", [build_model, adapted_model])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_only_the_share_of_the_task_is_left_out(trainer_of, mixed, accumulation, built, method):
    bad, good = bad_positions(mixed)
    micro_batches = [[0, 1, bad], [2, good[0], good[1]]][:accumulation]
    recorder = Recorder()
    trainer = trainer_of(
        mixed, batches=[*micro_batches, *[[3, good[2]]] * accumulation], model=built(), callbacks=[recorder],
        num_train_epochs=1, gradient_accumulation_steps=accumulation, on_nonfinite="skip", logging_steps=1,
        gradient_method=METHODS[method](), optim="sgd",
    )  # fmt: skip
    expected = gradients_of(built(), trainer, micro_batches, left_out=[0])
    trainer.train()
    score = f"heads.{list(TASKS).index('score')}."
    for name, gradient in recorder.gradients[0].items():
        if accumulation == 1 and name.startswith((score, "heads.2.")):
            assert gradient is None or not gradient.any()
        elif gradient is not None and expected[name] is not None:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)
    first, second = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["skipped_score"] == 1
    assert not any(key.startswith("skipped") for key in second)
    assert ("loss_score" in first) == (accumulation == 2)
    assert trainer.describe_training()["skipped"] == {"score": 1}
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_weighting_does_not_see_a_skipped_loss(trainer_of, mixed, accumulation):
    bad, good = bad_positions(mixed)
    weighting = Attentive(TASKS)
    trainer = trainer_of(
        mixed, batches=[[0, 1, bad], [2, good[0]]][:accumulation], num_train_epochs=1, on_nonfinite="skip",
        gradient_accumulation_steps=accumulation, logging_steps=1, loss_weighting=weighting,
    )  # fmt: skip
    trainer.train()
    means = dict(zip(TASKS, weighting.means.tolist(), strict=True))
    assert means["score"] == 1.0
    assert means["pos"] != 1.0
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert entry["weight_pos"] > 1.0
    assert weighting.log_variances.isfinite().all()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", [Uncertainty, ImtlL])
def test_learned_weights_do_not_move_in_a_step_with_a_skip(trainer_of, mixed, kind, accumulation):
    bad, good = bad_positions(mixed)
    weighting = kind(TASKS)
    trainer = trainer_of(
        mixed, batches=[[0, 1, bad], [2, good[0]]][:accumulation], num_train_epochs=1, on_nonfinite="skip",
        gradient_accumulation_steps=accumulation, loss_weighting=weighting,
    )  # fmt: skip
    trainer.train()
    assert trainer.describe_training()["skipped"] == {"score": 1}
    assert not any(parameter.any() for parameter in weighting.parameters())


class Overflowing(Famo):
    """A weighting that sees no loss of `score` after a step, as if the step had let the loss overflow."""

    def after_step(self, step):
        assert step.losses.keys() == step.losses_after.keys()
        super().after_step(step)


def test_weighting_does_not_see_a_task_whose_loss_overflows_after_the_step(trainer_of, mixed, monkeypatch):
    _, good = bad_positions(mixed)
    weighting = Overflowing(TASKS)
    trainer = trainer_of(
        mixed, batches=[[0, 1, good[0]]], num_train_epochs=1, on_nonfinite="skip", loss_weighting=weighting
    )
    sums = trainer.step._losses_of_batches
    overflow = torch.tensor([float("inf") if task == "score" else 0.0 for task in TASKS])
    monkeypatch.setattr(trainer.step, "_losses_of_batches", lambda forward: sums(forward) + overflow)
    trainer.train()
    updated = dict(zip(TASKS, weighting.updates.tolist(), strict=True))
    assert (updated["pos"], updated["score"]) == (1.0, 0.0)


class SpoilsGradient(TrainerCallback):
    """A callback that lets the gradient of one weight overflow at some steps, with losses that stay finite."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_begin(self, args, state, control, model, **kwargs):
        weight = next(weight for name, weight in model.named_parameters() if "layer.0" in name)
        weight.register_hook(
            lambda gradient: gradient * float("inf") if state.global_step + 1 in self.steps else gradient
        )


class Optimizer(TrainerCallback):
    """A callback that copies the state of the optimizer after each step."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_step_end(self, args, state, control, optimizer, **kwargs):
        self.states.append(copy.deepcopy(optimizer.state_dict()["state"]))


@pytest.mark.parametrize("settings", [{}, {"optim": "sgd", "optim_args": "momentum=0.9"}, {"optim": "adafactor"}])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_step_with_a_gradient_that_is_not_finite_changes_nothing(trainer_of, disjoint, settings, clip):
    weighting, recorder, optimizer = Attentive(TASKS), Recorder(), Optimizer()
    trainer = trainer_of(
        disjoint, callbacks=[SpoilsGradient(2), recorder, optimizer], max_steps=3, logging_steps=1, weight_decay=0.1,
        max_grad_norm=clip, on_nonfinite="skip", loss_weighting=weighting, **settings,
    )  # fmt: skip
    trainer.train()
    first, second, third = recorder.weights
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, third[name]) for name, value in second.items())
    for number, values in optimizer.states[0].items():
        for key, value in values.items():
            same = optimizer.states[1][number][key]
            assert torch.equal(value, same) if isinstance(value, torch.Tensor) else value == same
    assert trainer.describe_training()["skipped"] == {"gradient": 1}
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry.get("skipped_gradient") for entry in logs] == [None, 1, None]


def test_step_without_any_share_changes_nothing(trainer_of, mixed):
    bad, _ = bad_positions(mixed)
    recorder = Recorder()
    trainer = trainer_of(
        mixed, batches=[[0], [bad], [1]], num_train_epochs=1, on_nonfinite="skip", weight_decay=0.1,
        callbacks=[recorder],
    )  # fmt: skip
    trainer.train()
    assert all(torch.equal(value, recorder.weights[1][name]) for name, value in recorder.weights[0].items())
    assert trainer.describe_training()["skipped"] == {"score": 1}


@pytest.mark.parametrize("logging", [{"logging_steps": 100}, {"logging_steps": 1}])
def test_ten_steps_in_a_row_end_the_run(trainer_of, mixed, logging):
    bad, good = bad_positions(mixed)
    batches = [[0, bad]] * 9 + [[1, good[0]]] + [[0, bad]] * 11
    trainer = trainer_of(mixed, batches=batches, num_train_epochs=1, on_nonfinite="skip", **logging)
    with pytest.raises(RunError) as error:
        trainer.train()
    assert trainer.state.global_step == 19
    assert str(error.value) == (
        "Training has diverged: at step 20, the loss of task 'score' became infinite or NaN. 10 steps in a row were "
        "skipped for this reason. Train again with a lower `learning_rate`."
    )


def test_steps_without_rows_of_the_task_are_not_counted(trainer_of, mixed):
    bad, _ = bad_positions(mixed)
    trainer = trainer_of(mixed, batches=[[bad], [0], [1]] * 11, num_train_epochs=1, on_nonfinite="skip")
    with pytest.raises(RunError, match=r"at step 28, the loss of task 'score' .* 10 steps in a row were skipped"):
        trainer.train()


def test_error_names_the_rows_of_the_last_skipped_step(trainer_of, with_bad_row):
    settings = {"num_train_epochs": 10, "per_device_train_batch_size": 12, "on_nonfinite": "skip"}
    trainer = trainer_of(with_bad_row, **settings)
    with pytest.raises(
        RunError, match=rf"at step {MOST_IN_A_ROW}, the loss of task 'score' .*The step had rows 0, 1, "
    ):
        trainer.train()
    trainer = trainer_of(with_bad_row, callbacks=[SpoilsGradient(*range(30))], **settings, loss_weights={"score": 0.5})
    with pytest.raises(RunError, match=r"at step 10, the loss of task 'score' became"):
        trainer.train()


def test_resumed_run_continues_counting(trainer_of, mixed, tmp_path):
    bad, good = bad_positions(mixed)
    settings = {"num_train_epochs": 1, "on_nonfinite": "skip", "save_strategy": "steps", "save_steps": 4}
    batches = [[1, good[0]]] + [[0, bad]] * 4 + [[1, good[1]]] * 5 + [[2, bad]]
    whole = trainer_of(mixed, batches=batches, **settings)
    whole.train()
    assert whole.describe_training()["skipped"] == {"score": 5}
    checkpoint = tmp_path / "run" / "checkpoint-4"
    saved = json.loads((checkpoint / "progress.json").read_text())
    assert (saved["skipped"], saved["skipped_in_row"]) == ({"score": 3}, {"score": 3})
    resumed = trainer_of(mixed, batches=batches, **{**settings, "save_strategy": "no"})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.describe_training()["skipped"] == {"score": 5}
    assert_same_weights(resumed.model, whole.model)
    stopped = trainer_of(mixed, batches=[*batches[:4], *[[0, bad]] * 8], **{**settings, "save_strategy": "no"})
    with pytest.raises(RunError, match=r"at step 11, .* 10 steps in a row were skipped"):
        stopped.train(resume_from_checkpoint=str(checkpoint))
    for name in ("skipped", "skipped_in_row"):  # the record of an earlier release
        del saved[name]
    (checkpoint / "progress.json").write_text(json.dumps(saved))
    resumed = trainer_of(mixed, batches=batches, **{**settings, "save_strategy": "no"})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.describe_training()["skipped"] == {"score": 2}


def test_finite_training_is_the_same_with_and_without_skipping(trainer_of, disjoint):
    found = []
    for on_nonfinite in ("stop", "skip"):
        trainer = trainer_of(disjoint, max_steps=4, logging_steps=2, on_nonfinite=on_nonfinite)
        trainer.train()
        found.append(trainer)
    assert_same_weights(found[0].model, found[1].model)
    assert logs_of(found[0]) == logs_of(found[1])
    assert "skipped" not in found[0].describe_training()
    assert found[1].describe_training()["skipped"] == {}


def test_counts_have_names_and_sentences():
    assert gradient_name(["pos"]) == "gradient"
    assert gradient_name(["gradient", "pos"]) == "gradient_"
    first, second = describe_skips({"pos": 3, "ner": 0, "gradient": 1}, ["pos", "ner"])
    assert first.startswith("the loss of pos was infinite or NaN in 3 steps, and its share of these steps was skipped")
    assert second.startswith("the gradient was infinite or NaN in 1 step with finite losses")


@pytest.mark.parametrize("kind", [Uncertainty, Famo, GradNorm, EqualStart])
def test_resumed_run_with_learned_weights_frozen_tasks_and_skips_is_the_same(trainer_of, mixed, tmp_path, kind):
    bad, good = bad_positions(mixed)
    settings = {
        "num_train_epochs": 1, "on_nonfinite": "skip", "gradient_accumulation_steps": 2, "learning_rate": 0.01,
        "freeze_patience": 1, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 1,
        "logging_steps": 1,
    }  # fmt: skip
    batches = [[0, good[0]], [1, bad], [2, good[1]], [3], [4, good[2]], [5, bad], [6], [7, good[3]]] * 2
    weightings = [kind(TASKS) for _ in range(2)]
    whole = trainer_of(mixed, mixed, batches=batches, loss_weighting=weightings[0], **settings)
    whole.train()
    described = whole.describe_training()
    assert described["frozen"]
    assert described["skipped"]["score"] >= 3
    for step in (3, 4):
        resumed = trainer_of(
            mixed, mixed, batches=batches, loss_weighting=weightings[1], **{**settings, "save_strategy": "no"}
        )
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(resumed.model, whole.model)
        assert_same_weights(*weightings)
        again = resumed.describe_training()
        assert all(again[key] == described[key] for key in ("steps", "frozen", "skipped"))


def test_training_that_skips_most_steps_has_diverged(trainer_of, mixed):
    trainer = trainer_of(mixed, on_nonfinite="skip")
    trainer.state.global_step = 8
    trainer.progress.skipped = {"score": 4}
    trainer.check_skips()
    trainer.progress.skipped = {"score": 5}
    with pytest.raises(RunError, match=r"the loss of task 'score' was infinite or NaN in 5 of 8 steps"):
        trainer.check_skips()
    trainer.state.global_step = 10
    trainer.check_skips()


def test_a_training_with_bad_rows_in_most_steps_ends(trainer_of, mixed):
    bad, good = bad_positions(mixed)
    batches = [[n, bad] if n < 6 else [n, good[0]] for n in range(8)]
    trainer = trainer_of(mixed, batches=batches, num_train_epochs=1, on_nonfinite="skip")
    with pytest.raises(RunError, match=r"'score' was infinite or NaN in 6 of 8 steps .*not saved"):
        trainer.train()
