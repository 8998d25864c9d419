"""Fixtures: trainers on toy splits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from toy_splits import build_split, split_with_bad_row
from trainers import build_model
from watched_training import OrderedTrainer

from mtl_nlp import (
    EncodedDataset,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    TaskMixture,
)


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["wordpiece"]


@pytest.fixture(scope="module")
def disjoint(tokenizer) -> dict[str, EncodedDataset]:
    """Two datasets without a task in common, of 16 and 24 texts."""
    words = build_split(tokenizer, 2, [3 + n % 5 for n in range(16)], {"pos": lambda n: True, "ner": lambda n: True})
    texts = build_split(
        tokenizer, 3, [2 + n % 7 for n in range(24)], {"topic": lambda n: True, "score": lambda n: True}
    )
    return {"words": words, "texts": texts}


@pytest.fixture(scope="module")
def with_bad_row(tokenizer) -> dict[str, EncodedDataset]:
    """A dataset of twelve texts, of which one lets the loss of `score` overflow."""
    return {"d": split_with_bad_row(tokenizer)}


@pytest.fixture
def trainer_of(tokenizer, tmp_path) -> Callable[..., MultitaskTrainer]:
    """(train, validation, batches, …) -> a trainer for a tiny model; other arguments are training arguments.

    All tasks have the weight 1 and all layers one learning rate, unless the arguments say otherwise.
    """

    def build(
        train=None,
        validation=None,
        *,
        batches=None,
        model=None,
        callbacks=None,
        loss_weighting=None,
        gradient_method=None,
        given=None,
        **arguments,
    ):
        """`given` holds further arguments of the trainer."""
        model = model or build_model()
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "disable_tqdm": True,
            "save_strategy": "no",
            "max_grad_norm": 0.0,
            "head_learning_rate": arguments.get("learning_rate", 5e-5),
            "loss_weights": None if loss_weighting is not None else dict.fromkeys(model.tasks, 1.0),
        }
        trainer = (MultitaskTrainer if batches is None else OrderedTrainer)(
            model,
            MultitaskTrainingArguments(**{**defaults, **arguments}),
            None,
            None if train is None else TaskMixture(train) if isinstance(train, dict) else train,
            validation,
            tokenizer,
            callbacks=callbacks,
            loss_weighting=loss_weighting,
            gradient_method=gradient_method,
            **(given or {}),
        )
        trainer.batches = batches
        return trainer

    return build
