"""Every loss weighting of the recipe in the trainer: against its reference, with accumulation, and in resumed runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_splits import TASKS, build_split
from trainers import assert_same_weights, build_model
from weighting_references import OWN_PARAMETERS, RATE, REFERENCES, train_by_hand

from mtl_nlp import EncodedDataset, MultitaskDataCollator, TaskMixture
from mtl_nlp.balancing.registry import WEIGHTINGS, build_weighting

LEARNED = [name for name in WEIGHTINGS if name != "static"]
SETTINGS = {"optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": RATE, "logging_steps": 1}
STEPS = [list(range(32)), list(range(20, 4, -1)), list(range(31, 7, -1))]
"""The rows of the steps of an epoch: all tasks, all but the topic, and all but the topic."""


@pytest.fixture(scope="module")
def split(tokenizer) -> EncodedDataset:
    """32 texts, longest first: the first 4 have a topic, so the last two steps have none, and half have a score."""
    lengths = sorted((np.arange(2, 34) // 2).tolist(), reverse=True)
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 14, "score": lambda n: n % 2 == 0}
    return build_split(tokenizer, 1, lengths, has)


def weighting_of(name: str) -> Any:
    return build_weighting(name, TASKS, {}, OWN_PARAMETERS.get(name, {}))


def logged_weights(trainer) -> list[dict[str, float]]:
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{task: entry[f"weight_{task}"] for task in TASKS if f"weight_{task}" in entry} for entry in logs]


def parts(steps, accumulation: int) -> list[list[int]]:
    """Return micro-batches in which neighbours stay together, so that few have the rare tasks."""
    return [part.tolist() for step in steps for part in np.array_split(step, accumulation)]


@pytest.mark.parametrize("scale", ["rows", "per_task"])
@pytest.mark.parametrize("name", REFERENCES)
def test_weights_and_model_equal_the_formulas_of_the_paper_with_and_without_accumulation(
    trainer_of, tokenizer, split, name, scale
):
    model, collator, mixture = build_model(), MultitaskDataCollator(tokenizer, TASKS), TaskMixture({"d": split})
    batches = [collator(mixture.__getitems__(rows)) for rows in STEPS]
    expected = train_by_hand(model, [batches] * 4, REFERENCES[name](TASKS), scale)
    for accumulation in (1, 2):
        trainer = trainer_of(
            {"d": split}, batches=parts(STEPS, accumulation), num_train_epochs=4, loss_scale=scale,
            gradient_accumulation_steps=accumulation, loss_weighting=weighting_of(name), **SETTINGS,
        )  # fmt: skip
        trainer.train()
        found = logged_weights(trainer)
        assert len(found) == len(expected) == 12
        for own, reference in zip(found, expected, strict=True):
            # Adam in FAMO divides differences of losses by their size, and so enlarges rounding errors.
            close = pytest.approx(reference, rel=1e-5 if name == "famo" else 2e-6)
            assert own == ({} if trainer.loss_weighting.is_constant else close)
        for (key, value), other in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
            assert (value - other).norm() <= 1e-6 * other.norm() + 1e-7, key


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", LEARNED)
def test_resumed_run_is_equal_to_the_bit_in_the_middle_of_an_epoch(trainer_of, split, tmp_path, name, accumulation):
    def run(resume: str | None = None) -> Any:
        trainer = trainer_of(
            {"d": split}, model=build_model(hidden_dropout_prob=0.2), batches=parts(STEPS, accumulation),
            num_train_epochs=4, gradient_accumulation_steps=accumulation, loss_weighting=weighting_of(name),
            save_strategy="steps", save_steps=4, learning_rate=1e-3, logging_steps=1, output_dir=str(tmp_path / "run"),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run()
    for step in (4, 8):
        resumed = run(str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(whole.model, resumed.model)
        for key, value in whole.loss_weighting.state_dict().items():
            assert torch.equal(value, resumed.loss_weighting.state_dict()[key]), key
        assert logged_weights(whole) == logged_weights(resumed)


@pytest.mark.parametrize("name", ["random", "famo", "gradnorm", "equal-start"])
def test_weighting_does_not_change_the_random_state_of_the_training(trainer_of, split, name):
    found = []
    for weighting in (None, weighting_of(name)):
        trainer = trainer_of(
            {"d": split}, model=build_model(hidden_dropout_prob=0.2), batches=parts(STEPS, 2), max_steps=3,
            gradient_accumulation_steps=2, loss_weighting=weighting,
        )  # fmt: skip
        trainer.train()
        found.append(torch.get_rng_state())
    assert torch.equal(*found)


@pytest.mark.parametrize("name", LEARNED)
def test_weighting_trains_in_bfloat16_with_gradient_checkpointing(trainer_of, split, name):
    trainer = trainer_of(
        {"d": split}, batches=parts(STEPS, 2), max_steps=3, gradient_accumulation_steps=2, logging_steps=1, bf16=True,
        activation_checkpointing=True, loss_weighting=weighting_of(name),
    )  # fmt: skip
    trainer.train()
    assert all(np.isfinite(list(entry.values())).all() for entry in logged_weights(trainer))
    assert all(value.isfinite().all() for value in trainer.loss_weighting.state_dict().values())
