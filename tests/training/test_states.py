from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from toy_splits import TASKS
from toy_weightings import Attentive, Uncertainty, Watching
from trainers import assert_same_weights, build_model, logs_of
from transformers import TrainerCallback

from mtl_nlp import MultitaskTrainer, MultitaskTrainingArguments
from mtl_nlp.balancing.registry import build_weighting
from mtl_nlp.balancing.static import Static
from mtl_nlp.errors import CheckpointError
from mtl_nlp.training.states import StreamPosition, load_weighting, random_state_name, save_weighting

SETTINGS = {"max_steps": 4, "learning_rate": 0.05, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2}


# The loss weighting


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", [Uncertainty, Attentive])
def test_resumed_learned_weighting_ends_like_an_uninterrupted_one(trainer_of, disjoint, tmp_path, kind, accumulation):
    settings = {**SETTINGS, "max_steps": 7, "save_steps": 1, "gradient_accumulation_steps": accumulation}
    dropout = {"hidden_dropout_prob": 0.2}
    whole = trainer_of(disjoint, model=build_model(**dropout), loss_weighting=kind(TASKS), **settings)
    whole.train()
    assert all(f"weight_{task}" in entry for entry in logs_of(whole)[-1:] for task in TASKS if f"loss_{task}" in entry)
    assert all((group["lr"] < 0.05) for group in whole.optimizer.param_groups)
    for step in (2, 5):  # inside epochs, and with accumulation also at the end of an epoch
        resumed = trainer_of(
            disjoint, model=build_model(**dropout), loss_weighting=kind(TASKS), **{**settings, "save_strategy": "no"}
        )
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(resumed.model, whole.model)
        assert_same_weights(resumed.loss_weighting, whole.loss_weighting)
        assert logs_of(resumed) == logs_of(whole)
    assert not torch.equal(whole.loss_weighting.log_variances, kind(TASKS).log_variances)


@pytest.fixture
def checkpoint(trainer_of, disjoint, tmp_path) -> Path:
    """A checkpoint with the state of an `Attentive` weighting."""
    trainer_of(disjoint, loss_weighting=Attentive(TASKS), **SETTINGS).train()
    return tmp_path / "run" / "checkpoint-4"


def test_checkpoint_without_the_state_of_a_learned_weighting_is_refused(trainer_of, disjoint, checkpoint):
    (checkpoint / "weighting.pt").unlink()
    with pytest.raises(CheckpointError) as raised:
        trainer_of(disjoint, loss_weighting=Attentive(TASKS), **SETTINGS).train(resume_from_checkpoint=str(checkpoint))
    assert str(raised.value) == (
        f"{checkpoint} has no weighting.pt, the state of the loss weighting Attentive. Resume from a checkpoint "
        f"of a run with Attentive."
    )


@pytest.mark.parametrize("weighting", [Uncertainty(TASKS), Attentive(["pos", "ner"])])
def test_checkpoint_of_a_different_weighting_is_refused_in_one_line(trainer_of, disjoint, checkpoint, weighting):
    message = r"weighting\.pt cannot be read as the state of the loss weighting \w+ \("
    with pytest.raises(CheckpointError, match=message) as raised:
        trainer_of(disjoint, loss_weighting=weighting, **SETTINGS).train(resume_from_checkpoint=str(checkpoint))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK", b"no pickle at all"])
def test_unreadable_state_is_refused_in_one_line(checkpoint, content):
    (checkpoint / "weighting.pt").write_bytes(content)
    message = r"weighting\.pt cannot be read as the state of the loss weighting Attentive"
    with pytest.raises(CheckpointError, match=message) as raised:
        load_weighting(checkpoint, Attentive(TASKS))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pickled", [b"", b"\x80\x02", b"\x80\x02X\x01", b"\x80\x02.", b"\x80\x02h\x05."], ids=repr)
def test_damaged_pickle_is_refused_in_one_line(checkpoint, pickled):
    with zipfile.ZipFile(checkpoint / "weighting.pt", "w") as content:
        content.writestr("archive/data.pkl", pickled)
        content.writestr("archive/version", "3")
    with pytest.raises(CheckpointError, match=r"weighting\.pt cannot be read as the state of the loss weighting"):
        load_weighting(checkpoint, Attentive(TASKS))


def test_code_in_a_state_is_not_executed(checkpoint):
    torch.save({"log_variances": Path("/")}, checkpoint / "weighting.pt")
    with pytest.raises(CheckpointError, match="cannot be read as the state of the loss weighting Attentive"):
        load_weighting(checkpoint, Attentive(TASKS))


@pytest.mark.parametrize("weighting", [Static({"pos": 0.5}), Watching()])
def test_weighting_without_state_does_not_resume_from_a_checkpoint_with_state(checkpoint, weighting):
    with pytest.raises(CheckpointError, match=r"it has weighting\.pt, and \w+ has no state"):
        load_weighting(checkpoint, weighting)


@pytest.mark.parametrize("weighting", [Static({"pos": 0.5}), Watching()])
def test_weighting_without_state_writes_no_file(tmp_path, weighting):
    save_weighting(tmp_path, weighting)
    assert not list(tmp_path.iterdir())
    load_weighting(tmp_path, weighting)


LEARNED = ["uncertainty", "dwa", "gradnorm", "imtl-l", "famo", "equal-start"]


@pytest.mark.parametrize("name", LEARNED)
def test_state_of_every_other_weighting_is_refused_in_one_line(tmp_path, name):
    save_weighting(tmp_path, build_weighting(name, TASKS, {}, {}))
    for other in set(LEARNED) - {name}:
        with pytest.raises(CheckpointError, match="cannot be read as the state of the loss weighting") as raised:
            load_weighting(tmp_path, build_weighting(other, TASKS, {}, {}))
        assert "\n" not in str(raised.value)
    for other in ("random", "stch", "log-classes"):
        with pytest.raises(CheckpointError, match="belongs to a different loss weighting"):
            load_weighting(tmp_path, build_weighting(other, TASKS, {}, {}))


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("value", [float("nan"), 3, "text", None, torch.zeros(3, 3, 3)], ids=repr)
def test_damaged_value_in_a_state_is_refused_in_one_line(tmp_path, name, value):
    state = build_weighting(name, TASKS, {}, {}).state_dict()
    key, before = next((key, tensor) for key, tensor in state.items() if tensor.is_floating_point())
    is_nan = isinstance(value, float)
    torch.save({**state, key: torch.full_like(before, value) if is_nan else value}, tmp_path / "weighting.pt")
    with pytest.raises(CheckpointError) as raised:
        load_weighting(tmp_path, build_weighting(name, TASKS, {}, {}))
    assert "\n" not in str(raised.value)


class Spoiler(TrainerCallback):
    """Callback that makes all answers of the model equal after 3 steps."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step >= 3:
            with torch.no_grad():
                for parameter in model.heads.parameters():
                    parameter.zero_()


def test_weighting_of_the_best_model_is_loaded_at_the_end(trainer_of, disjoint, tmp_path):
    settings = {**SETTINGS, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 1e-2}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    weighting = Uncertainty(TASKS)
    trainer = trainer_of(disjoint, disjoint, callbacks=[Spoiler()], loss_weighting=weighting, **settings)
    trainer.train()
    best = trainer.state.best_global_step
    states = [torch.load(tmp_path / "run" / f"checkpoint-{step}" / "weighting.pt") for step in (best, 4)]
    assert best < 4
    assert torch.equal(weighting.log_variances, states[0]["log_variances"])
    assert not torch.equal(states[0]["log_variances"], states[1]["log_variances"])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric)


# The optimizer


@pytest.mark.parametrize(("own", "expected"), [(None, 1e-3), (5e-2, 5e-2)])
def test_parameters_of_a_weighting_form_a_group_without_weight_decay(trainer_of, disjoint, own, expected):
    weighting = Uncertainty(TASKS)
    weighting.learning_rate = own
    settings = {"learning_rate": 1e-3, "head_learning_rate": 1e-2, "weight_decay": 0.1}
    trainer = trainer_of(disjoint, loss_weighting=weighting, **settings)
    groups = trainer.create_optimizer().param_groups
    (group,) = [group for group in groups if any(p is weighting.log_variances for p in group["params"])]
    assert (len(group["params"]), group["lr"], group["weight_decay"]) == (1, expected, 0.0)
    assert trainer.create_optimizer().param_groups == groups


def test_optimizer_without_the_parameters_of_the_weighting_is_refused(tokenizer, disjoint, tmp_path, trainer_of):
    model, weighting = build_model(), Uncertainty(TASKS)
    args = MultitaskTrainingArguments(str(tmp_path), save_strategy="no", disable_tqdm=True, max_steps=1)

    def trainer(*parameters: torch.nn.Parameter) -> MultitaskTrainer:
        optimizer = torch.optim.SGD([*model.parameters(), *parameters], lr=0.1)
        mixture = trainer_of(disjoint).train_dataset
        given = {"optimizers": (optimizer, None), "loss_weighting": weighting}
        return MultitaskTrainer(model, args, None, mixture, processing_class=tokenizer, **given)

    with pytest.raises(ValueError, match="should have the parameters of the loss weighting Uncertainty"):
        trainer().train()
    before = weighting.log_variances.detach().clone()
    trainer(weighting.log_variances).train()
    assert not torch.equal(before, weighting.log_variances)


def test_loss_weights_exclude_a_weighting(trainer_of):
    with pytest.raises(ValueError, match=r"exclude a `loss_weighting`\. Leave out one of the two"):
        trainer_of(loss_weights={"pos": 1.0}, loss_weighting=Uncertainty(TASKS))


# Streams and random states


def test_position_is_read_only_for_the_same_index_and_number_of_processes(tmp_path):
    position = StreamPosition(1, 2)
    position.save(tmp_path)
    assert not list(tmp_path.iterdir())
    position.state = {"window": 3, "readers": {}}
    position.save(tmp_path)
    for process, processes, expected in ((1, 2, {"window": 3, "readers": {}}), (0, 2, None), (1, 3, None)):
        other = StreamPosition(process, processes)
        other.load(tmp_path)
        assert other.state == expected


def test_random_state_has_the_file_name_of_trainer(trainer_of, disjoint, tmp_path):
    trainer = trainer_of(disjoint, **SETTINGS)
    trainer.train()
    assert (tmp_path / "run" / "checkpoint-4" / random_state_name(trainer.args)).stat().st_size > 0
    shutil.rmtree(tmp_path / "run")
    only_model = trainer_of(disjoint, save_only_model=True, **SETTINGS)
    only_model.train()
    assert not list((tmp_path / "run" / "checkpoint-4").glob("rng_state*"))


def test_state_of_a_weighting_that_is_not_finite_is_refused(tmp_path):
    weighting = Uncertainty(["a", "b"])
    weighting.log_variances.data[1] = float("nan")
    save_weighting(tmp_path, weighting)
    with pytest.raises(CheckpointError, match=r"weighting\.pt: The weights should be finite\. Found .* log_variances"):
        load_weighting(tmp_path, Uncertainty(["a", "b"]))
