from __future__ import annotations

import json

import pytest
import torch
from toy_gradient_methods import PlainSum
from toy_splits import TASKS, build_split
from toy_weightings import Uncertainty
from trainers import adapted_model, assert_same_weights, build_model, logs_of
from watched_training import Recorder

from mtl_nlp.errors import CheckpointError
from mtl_nlp.modeling.loss_multitask import count_step

SETTINGS = {"max_steps": 4, "logging_steps": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def mixed(tokenizer):
    """24 texts with labels for two to four tasks."""
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 4, "score": lambda n: n % 2 == 0}
    return {"d": build_split(tokenizer, 1, [2 + n % 9 for n in range(24)], has)}


@pytest.mark.parametrize(
    "way", [{}, {"activation_checkpointing": True}, {"gradient_accumulation_steps": 2}, {"bf16": True}]
)
def test_measuring_leaves_the_training_as_it_is_to_the_last_bit(trainer_of, mixed, way):
    found = []
    for conflict in ({}, {"conflict_every": 1}):
        recorder = Recorder()
        model = build_model(hidden_dropout_prob=0.2)
        trainer = trainer_of(mixed, model=model, callbacks=[recorder], **SETTINGS, **way, **conflict)
        trainer.train()
        logs = [
            {key: value for key, value in entry.items() if not key.startswith("cosine_")} for entry in logs_of(trainer)
        ]
        found.append((recorder, logs))
        assert (trainer.conflict is not None) == bool(conflict)
    (plain, plain_logs), (measured, logs) = found
    assert logs == plain_logs
    for name, value in plain.weights[-1].items():
        assert torch.equal(value, measured.weights[-1][name])
    for name, value in plain.gradients[-1].items():
        assert torch.equal(value, measured.gradients[-1][name])
    assert len(trainer.conflict.conflict.measurements) == 4


def reference(model, batch) -> torch.Tensor:
    """Return the gradients of the mean losses on the encoder without the word embeddings, computed task by task."""
    counts = count_step([batch], TASKS)
    parameters = [p for n, p in model.encoder.named_parameters() if "word_embeddings" not in n and ".task_" not in n]
    rows = []
    for task in TASKS:
        loss = model(**batch).loss_sums[task] / (counts.units[task] or 1)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double())
    return torch.stack(rows)


@pytest.mark.parametrize("method", [None, PlainSum])
@pytest.mark.parametrize("build", [build_model, adapted_model])
def test_measured_cosines_and_norms_are_those_of_the_mean_losses(trainer_of, mixed, build, method):
    model = build().train()
    settings = {**SETTINGS, "max_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 24, "conflict_every": 1}
    # The gradients of the weighted shares have other norms, but the same cosines.
    trainer = trainer_of(
        mixed, model=model, gradient_method=method and method(TASKS), loss_weighting=Uncertainty(TASKS), **settings
    )
    (batch,) = trainer.get_train_dataloader()
    gradients = reference(model, batch)
    trainer.train()
    content = trainer.conflict.conflict.content()
    (measurement,) = content["measurements"]
    assert (measurement["step"], content["every"], content["tasks"]) == (1, 1, list(TASKS))
    assert measurement["rows"] == {task: len(batch["rows"][task]) for task in TASKS}
    assert content["layers"] == ["embeddings", "layer 0", "layer 1"]
    norms = gradients.norm(dim=1)
    assert list(measurement["norms"].values()) == pytest.approx(norms.tolist(), rel=1e-4)
    cosines = (gradients @ gradients.T) / (norms[:, None] * norms)
    for found in (measurement["cosine"], content["mean"]["cosine"]):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), cosines, rtol=1e-4, atol=1e-5)
    negative = (cosines < 0).double().tolist()
    assert content["mean"]["conflicting"] == negative
    parts = torch.tensor(list(measurement["norms_by_layer"].values()), dtype=torch.float64)
    torch.testing.assert_close(parts.square().sum(dim=1).sqrt(), norms, rtol=1e-4, atol=0.0)
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert entry["cosine_pos_ner"] == measurement["cosine"][0][1]
    assert {key for key in entry if key.startswith("cosine_")} == {
        f"cosine_{a}_{b}" for n, a in enumerate(TASKS) for b in list(TASKS)[n + 1 :]
    }


def test_each_kth_step_is_measured_and_tasks_without_rows_are_null(trainer_of, disjoint):
    trainer = trainer_of(disjoint, batches=[[0, 1], [2, 3], [16, 17], [18, 19]], conflict_every=2, **SETTINGS)
    trainer.train()
    content = trainer.conflict.conflict.content()
    words, texts = content["measurements"]
    assert (words["step"], texts["step"]) == (2, 4)
    assert words["rows"] == {"pos": 2, "ner": 2, "topic": 0, "score": 0}
    assert words["cosine"][2] == [None] * 4
    assert words["norms"]["topic"] is None
    assert texts["cosine"][0][1] is None
    assert content["mean"]["cosine"][0][2] is None
    assert content["mean"]["conflicting"][0][2] is None
    assert content["mean"]["cosine"][0][1] == words["cosine"][0][1]
    assert "cosine_pos_topic" not in trainer.state.log_history[0]


def test_resumed_run_has_the_measurements_of_an_uninterrupted_run(trainer_of, mixed, tmp_path):
    settings = {**SETTINGS, "conflict_every": 1, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_of(mixed, **settings)
    whole.train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    resumed = trainer_of(mixed, **{**settings, "save_strategy": "no"})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.conflict.conflict.content() == whole.conflict.conflict.content()
    assert_same_weights(resumed.model, whole.model)
    assert logs_of(resumed) == logs_of(whole)
    resumed.train()  # a new training starts anew
    assert len(resumed.conflict.conflict.measurements) == 4


@pytest.mark.parametrize("damage", ["{}", "[]", '{"measurements": [{}], "tasks": ["pos"]}', "tasks", "matrix", "nan"])
def test_damaged_measurements_in_a_checkpoint_are_refused_in_one_line(trainer_of, mixed, tmp_path, damage):
    settings = {**SETTINGS, "conflict_every": 1, "save_strategy": "steps", "save_steps": 2}
    trainer_of(mixed, **settings).train()
    file = tmp_path / "run" / "checkpoint-2" / "conflict.json"
    content = json.loads(file.read_text())
    if damage == "tasks":
        content["tasks"][0] = "other"
    elif damage == "matrix":
        content["measurements"][0]["cosine"].pop()
    elif damage == "nan":
        content["measurements"][0]["norms"]["pos"] = float("nan")
    file.write_text(json.dumps(content) if damage in {"tasks", "matrix", "nan"} else damage)
    with pytest.raises(CheckpointError) as raised:
        trainer_of(mixed, **settings).train(resume_from_checkpoint=str(file.parent))
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
