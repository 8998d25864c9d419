"""Trainings that begin with a new model, and the search for hyperparameters."""

from __future__ import annotations

import pytest
import torch
from toy_splits import TASKS
from toy_weightings import Uncertainty
from trainers import assert_same_weights, build_model

from mtl_nlp import MultitaskTrainer, MultitaskTrainingArguments, TaskMixture, TextClassification
from mtl_nlp.training.renewing import first_model

STEPS = {"max_steps": 2, "learning_rate": 0.01, "logging_steps": 1}


@pytest.fixture
def renewing(tokenizer, disjoint, tmp_path):
    """A function from a `model_init` and training arguments to a trainer."""

    def build(model_init, *, given=None, **arguments) -> MultitaskTrainer:
        settings = {
            "output_dir": str(tmp_path / "run"),
            "disable_tqdm": True,
            "save_strategy": "no",
            "report_to": "none",
        }
        return MultitaskTrainer(
            model_init=model_init,
            args=MultitaskTrainingArguments(**{**settings, **STEPS, **arguments}),
            train_dataset=TaskMixture(disjoint),
            eval_dataset=disjoint,
            processing_class=tokenizer,
            **(given or {}),
        )

    return build


def new_model():
    """Return a model whose weights depend on the current seed."""
    model = build_model(hidden_dropout_prob=0.1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_each_training_begins_anew_and_equals_the_first(renewing, tmp_path):
    weighting = Uncertainty(TASKS)
    trainer = renewing(
        new_model, given={"loss_weighting": weighting}, save_strategy="steps", save_steps=1, freeze_patience=9,
        eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    trainer.train()
    first, state, logged = trainer.model, trainer.loss_weighting, losses(trainer)
    trainer.train()
    assert trainer.model is not first
    assert_same_weights(trainer.model, first)
    assert_same_weights(trainer.loss_weighting, state)
    assert losses(trainer) == logged and len(logged) == 2
    assert_same_weights(weighting, Uncertainty(TASKS))
    resumed = renewing(
        new_model, given={"loss_weighting": weighting}, freeze_patience=9, eval_strategy="steps", eval_steps=1
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert_same_weights(resumed.model, first)
    assert_same_weights(resumed.loss_weighting, state)
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert len(kinds) == len(set(kinds))


def test_models_with_other_tasks_are_refused(renewing):
    models = [build_model(), build_model([TextClassification("topic", ["a", "b"])])]
    trainer = renewing(lambda: models.pop(0))
    with pytest.raises(ValueError, match=r"`model_init` should return models with the same tasks\. Found topic"):
        trainer.train()


def test_first_model_is_the_given_one_or_that_of_the_function(tmp_path):
    args, model = MultitaskTrainingArguments(str(tmp_path)), build_model()
    assert first_model(model, None, args, (None, None)) is model
    assert first_model(None, lambda trial: model, args, (None, None)) is model
    with pytest.raises(ValueError, match="Found both or none"):
        first_model(model, new_model, args, (None, None))


def test_search_tries_arguments_and_returns_the_best_trial(renewing, tmp_path):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    rates = []

    def space(trial):
        return {"learning_rate": trial.suggest_categorical("learning_rate", [1e-4, 1e-2]), "adapter_pull": 0.0}

    def watched():
        rates.append(trainer.args.learning_rate if rates else None)
        return new_model()

    trainer = renewing(watched, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)
    best = trainer.hyperparameter_search(space, n_trials=2, direction="maximize", hp_name=lambda t: f"try-{t.number}")
    assert best.hyperparameters.keys() == {"learning_rate"} and len(rates) == 3
    assert {path.name for path in (tmp_path / "run").glob("try-*")} == {"try-0", "try-1"}
    assert 0.0 <= best.objective <= 1.0


def test_search_names_what_is_missing(renewing, trainer_of):
    with pytest.raises(ValueError, match="Pass `model_init=`"):
        trainer_of().hyperparameter_search()
    trainer = renewing(new_model)
    for wrong, message in (
        ({"backend": "ray"}, "`backend` should be 'optuna'"),
        ({"n_jobs": 2}, "`n_jobs` should be 1"),
        ({"direction": ["minimize", "maximize"]}, "`compute_objective` is needed"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.hyperparameter_search(**wrong)
