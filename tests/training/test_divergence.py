"""Losses, gradients and weights that are not finite end a run before anything is saved."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_splits import BAD_ROW, TASKS
from toy_weightings import Attentive, Uncertainty
from trainers import adapted_model, assert_same_weights, build_model
from transformers import TrainerCallback
from watched_training import Recorder

from mtl_nlp.errors import RunError
from mtl_nlp.training.divergence import Divergence, DivergenceWatch, diverged


def step_of_row(trainer: Any, row: int) -> tuple[int, list[int]]:
    """Return the step of the first epoch that has a row, counted from 1, and the rows of the step."""
    windows = trainer.train_dataset.datasets["d"].windows
    sampler = trainer.get_train_dataloader().batch_sampler
    accumulated = trainer.args.gradient_accumulation_steps
    batches = [[windows[index]["row"] for index in batch] for batch in sampler]
    for number in range(0, len(batches), accumulated):
        rows = sorted(itertools.chain(*batches[number : number + accumulated]))
        if row in rows:
            return number // accumulated + 1, rows
    raise AssertionError("no step has the row")


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd", "adafactor"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_loss_that_overflows_ends_the_run_and_names_task_step_and_rows(trainer_of, with_bad_row, optim, accumulation):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation, "num_train_epochs": 1}
    recorder = Recorder()
    trainer = trainer_of(with_bad_row, callbacks=[recorder], optim=optim, weight_decay=0.1, **settings)
    step, rows = step_of_row(trainer, BAD_ROW)
    with pytest.raises(RunError) as error:
        trainer.train()
    assert str(error.value) == (
        f"Training has diverged: at step {step}, the loss of task 'score' became infinite or NaN. The step had "
        f"rows {', '.join(map(str, rows))} of d/train. Nothing was saved since. Check these rows, and train again "
        f"with a lower `learning_rate`."
    )
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())
    if optim == "adamw_torch_fused":
        before = recorder.weights[step - 2] if step > 1 else recorder.start
        assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.state.log_history == []


@pytest.mark.parametrize("logging", [{"logging_strategy": "no"}, {"logging_steps": 1}, {"logging_steps": 4}])
def test_run_ends_at_the_next_log_or_at_the_end_of_training(trainer_of, with_bad_row, logging):
    settings = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "lr_scheduler_type": "constant"}
    trainer = trainer_of(with_bad_row, **settings, **logging)
    step, _ = step_of_row(trainer, BAD_ROW)
    with pytest.raises(RunError, match=rf"at step {step}, the loss of task 'score' became .* row {BAD_ROW} of d/train"):
        trainer.train()
    interval = logging.get("logging_steps", 12)
    assert trainer.state.global_step == math.ceil(step / interval) * interval
    assert len(trainer.state.log_history) == (step - 1) // interval


def test_nothing_is_saved_evaluated_or_deleted_after_the_step(trainer_of, with_bad_row, disjoint, tmp_path):
    settings = {
        "per_device_train_batch_size": 1, "num_train_epochs": 3, "logging_strategy": "no", "save_strategy": "steps",
        "save_steps": 1, "save_total_limit": 2, "eval_strategy": "steps", "eval_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "loss",
    }  # fmt: skip
    trainer = trainer_of(with_bad_row, disjoint, **settings)
    step, _ = step_of_row(trainer, BAD_ROW)
    assert step > 1
    with pytest.raises(RunError, match=rf"resume from .*checkpoint-{step - 1} \(--resume\), or train again with"):
        trainer.train()
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in (tmp_path / "run").glob("checkpoint-*"))
    assert steps[-1] == step - 1
    assert [entry["step"] for entry in trainer.state.log_history] == list(range(1, step))
    json.dumps(trainer.state.log_history, allow_nan=False)


@pytest.mark.parametrize("rate", [1e30, 1e38])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("adapters", [False, True])
def test_learning_rate_that_is_far_too_high_ends_the_run(trainer_of, disjoint, rate, max_grad_norm, adapters):
    settings = {"max_steps": 5, "learning_rate": rate, "max_grad_norm": max_grad_norm, "optim": "sgd"}
    model = adapted_model() if adapters else build_model()
    trainer = trainer_of(disjoint, model=model, lr_scheduler_type="constant", **settings)
    with pytest.raises(RunError, match=r"Training has diverged: at step \d, .* with a lower `learning_rate`\.$"):
        trainer.train()


class Spoiling(TrainerCallback):
    """A callback that lets the gradient of one weight overflow at one step or at all, with losses that stay finite."""

    def __init__(self, step: int | None, number: float) -> None:
        self.step = step
        self.number = number

    def on_train_begin(self, args, state, control, model, **kwargs):
        weight = next(weight for name, weight in model.named_parameters() if "layer.0" in name)
        weight.register_hook(
            lambda gradient: gradient + self.number if self.step in {None, state.global_step + 1} else gradient
        )


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 1.0}, {"gradient_accumulation_steps": 2}])
@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_gradient_that_overflows_is_named(trainer_of, disjoint, optim, settings, number):
    sizes = {"per_device_train_batch_size": 20, "num_train_epochs": 4, "logging_steps": 3}
    recorder = Recorder()
    trainer = trainer_of(disjoint, callbacks=[Spoiling(2, number), recorder], **sizes, optim=optim, **settings)
    with pytest.raises(RunError) as error:
        trainer.train()
    message = str(error.value)
    assert "at step 2, the gradient became infinite or NaN, although the loss of every task was finite." in message
    assert "more of d. Nothing was saved since." in message
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())
    if optim == "adamw_torch_fused":
        expected = recorder.weights[0]
        assert all(torch.equal(value, expected[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("kind", [Uncertainty, Attentive])
def test_state_of_a_learned_weighting_stays_finite(trainer_of, with_bad_row, kind):
    weighting = kind(TASKS)
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_strategy": "no"}
    trainer = trainer_of(with_bad_row, loss_weighting=weighting, **settings)
    with pytest.raises(RunError, match="the loss of task 'score' became infinite or NaN"):
        trainer.train()
    assert all(value.isfinite().all() for value in weighting.state_dict().values())


class NotANumber(Uncertainty):
    """A weighting whose gradient is NaN, although its weights and penalty are finite."""

    def penalty(self, step) -> torch.Tensor:
        return (0.0 * self.log_variances.sum()).sqrt()  # the derivative of the square root at 0 is infinite


def test_gradient_of_the_weighting_counts(trainer_of, disjoint):
    weighting = NotANumber(TASKS)
    trainer = trainer_of(disjoint, loss_weighting=weighting, max_steps=3)
    with pytest.raises(RunError, match="at step 1, the gradient became infinite or NaN"):
        trainer.train()
    assert torch.equal(weighting.log_variances, Uncertainty(TASKS).log_variances)


def test_weight_that_overflows_is_found_before_it_is_saved(trainer_of, disjoint, tmp_path):
    class Breaking(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model, **kwargs):
            if state.global_step == 1:
                model.heads[2].stock.classifier.bias.data[0] = math.inf

    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = trainer_of({"words": disjoint["words"]}, callbacks=[Breaking()], **settings)
    with pytest.raises(RunError, match="at step 2, a weight became infinite or NaN, although all losses and gradients"):
        trainer.train()
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    with pytest.raises(
        RunError, match=r"the model cannot be saved\. The weights should be finite\. Found .* in heads\.2"
    ):
        trainer.save_model()
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_checkpoint_to_resume_from_is_named_as_it_is(trainer_of, disjoint, tmp_path):
    folder = tmp_path / "Run"
    settings = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "output_dir": str(folder)}
    trainer_of({"words": disjoint["words"]}, **settings).train()
    message = str(diverged(Divergence(0, [], True, [0]), 2, "", folder))
    assert message.endswith(
        f"Resume from {folder}/checkpoint-1 (--resume), or train again with a lower `learning_rate`."
    )


def test_second_training_after_a_divergence_begins_anew(trainer_of, with_bad_row, disjoint):
    trainer = trainer_of(with_bad_row, max_steps=8, per_device_train_batch_size=2)
    with pytest.raises(RunError):
        trainer.train()
    trainer.train_dataset = trainer_of(disjoint).train_dataset
    trainer.train()
    assert trainer.state.global_step == 8


# Gradient scalers


def with_scaler(trainer: Any, scale: float) -> Any:
    """Return a trainer after it was given a gradient scaler, as fp16 would give it."""
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_first_steps_of_a_scaler_may_overflow(trainer_of, disjoint, optim):
    recorder = Recorder()
    trainer = trainer_of(disjoint, callbacks=[recorder], max_steps=12, logging_steps=1, optim=optim)
    with_scaler(trainer, 2.0**68).train()
    moved = [
        not all(torch.equal(value, after[name]) for name, value in before.items())
        for before, after in itertools.pairwise([recorder.start, *recorder.weights])
    ]
    assert moved == sorted(moved)
    assert {False, True} == set(moved)
    assert trainer.state.log_history[0]["grad_norm"] is None
    json.dumps(trainer.state.log_history, allow_nan=False)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_loss_that_overflows_ends_a_run_with_a_scaler(trainer_of, with_bad_row, optim):
    trainer = trainer_of(with_bad_row, max_steps=12, per_device_train_batch_size=1, optim=optim)
    with pytest.raises(
        RunError, match=rf"the loss of task 'score' became infinite or NaN\. .* row {BAD_ROW} of d/train"
    ):
        with_scaler(trainer, 1.0).train()
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_scaler_that_never_finds_a_scale_ends_the_run(trainer_of, disjoint, optim):
    trainer = trainer_of(disjoint, callbacks=[Spoiling(None, math.inf)], max_steps=20, logging_steps=5, optim=optim)
    with pytest.raises(RunError, match=r"at step 15, the gradient became infinite or NaN, although"):
        with_scaler(trainer, 0.5).train()
    assert_same_weights(trainer.model, build_model())


# Ordinary runs


class Unwatched(DivergenceWatch):
    """A watch that does nothing."""

    def observe(self, *args: Any) -> None: ...
    def protect(self, *args: Any) -> None: ...
    def release(self, *args: Any) -> None: ...


def unwatched(trainer: Any) -> Any:
    """Return a trainer after it was given a watch that does nothing."""
    watch = Unwatched(trainer.watch.tasks, trainer.accelerator)
    trainer.watch = watch
    for callback in trainer.callback_handler.callbacks:
        if "watch" in vars(callback):
            callback.watch = watch
    return trainer


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 1.0, "gradient_accumulation_steps": 2, "bf16": True}])
def test_watch_does_not_change_an_ordinary_run_by_a_bit(trainer_of, disjoint, optim, settings):
    settings = {"num_train_epochs": 2, "logging_steps": 2, "learning_rate": 0.01, "optim": optim, **settings}
    runs = []
    for change in (unwatched, lambda trainer: trainer):
        weighting = Attentive(TASKS)
        trainer = change(trainer_of(disjoint, loss_weighting=weighting, weight_decay=0.1, **settings))
        trainer.train()
        runs.append((trainer, weighting))
    (plain, plain_weighting), (watched, weighting) = runs
    assert_same_weights(watched.model, plain.model)
    assert_same_weights(weighting, plain_weighting)
    states = [each.optimizer.state_dict()["state"] for each, _ in runs]
    assert all(
        torch.equal(a, states[1][key][name]) for key in states[0] for name, a in states[0][key].items() if a is not None
    )
    logs = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each, _ in runs]
    assert logs[0] == logs[1]


class WaitCounter(TorchDispatchMode):
    """A count of the operations that make the host wait for the device."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.split(".")[-1]
        if name in self.waits:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
@pytest.mark.parametrize("kind", [None, Attentive])
def test_watch_never_makes_the_host_wait_in_a_step(trainer_of, disjoint, optim, kind):
    def count(change: Callable[[Any], Any], steps: int) -> Counter[str]:
        weighting = None if kind is None else kind(TASKS)
        trainer = change(
            trainer_of(disjoint, loss_weighting=weighting, max_steps=steps, optim=optim, logging_strategy="no")
        )
        with WaitCounter() as counter:
            trainer.train()
        return counter.found

    plain, watched = (count(change, 6) - count(change, 2) for change in (unwatched, lambda trainer: trainer))
    assert plain.total() > 0, "the counter sees nothing"
    assert watched == plain


def test_filter_of_trainer_would_wait_for_every_micro_batch(trainer_of, disjoint):
    found = []
    for is_on in (True, False):
        trainer = trainer_of(disjoint, max_steps=4, logging_strategy="no")
        trainer.args.logging_nan_inf_filter = is_on
        with WaitCounter() as counter:
            trainer.train()
        found.append(counter.found.total())
    assert found[0] >= found[1] + 4
