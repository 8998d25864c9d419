"""From a prepared run to its model, its batches and its trainer."""

from __future__ import annotations

import copy

import torch
from safetensors import SafetensorError
from transformers import set_seed

from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.messages import one_line
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.adapters import adapt
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.schedule import batch_sampler
from mtl_nlp.training.trainer import MultitaskTrainer


def build_model(run: Run) -> MultitaskModel:
    """The encoder with new heads and adapters, seeded by the recipe's `training.seed`, or a trained model with more.

    Raises:
        RecipeError: if the encoder cannot be loaded, or the recipe's adapters and frozen parts do not fit it.
        ModelError: if a trained model cannot be loaded.
    """
    recipe = run.recipe
    set_seed(recipe.training.get("seed", 42))
    if run.starts_trained:
        return _apply_recipe(load_model(recipe.encoder, **{"dtype": torch.float32, **recipe.model_init_kwargs}), run)
    try:
        model = MultitaskModel.from_encoder(
            recipe.encoder,
            list(run.tasks.values()),
            max_length=run.config.max_length,
            stride=run.config.stride,
            **recipe.model_init_kwargs,
        )
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RecipeError(f"encoder: {recipe.encoder} cannot be loaded: {one_line(error)}") from error
    return _apply_recipe(model, run)


def build_meta_model(run: Run) -> MultitaskModel:
    """The model that `build_model` would build, without its weights.

    Raises:
        RecipeError: if the recipe's adapters and frozen parts do not fit it.
    """
    with torch.device("meta"):
        return _apply_recipe(MultitaskModel(copy.deepcopy(run.config)), run)


def _apply_recipe(model: MultitaskModel, run: Run) -> MultitaskModel:
    for name, task in run.tasks.items():
        if name not in model.tasks:
            model.add_task(task)
    model.config.max_length, model.config.stride = run.config.max_length, run.config.stride
    adapt(model, run.recipe)
    return model


def check_splits(run: Run, arguments: MultitaskTrainingArguments) -> None:
    """See that there are splits for what the arguments ask for and for the final scores.

    Raises:
        RecipeError: if there are none.
    """
    if "validation" not in run.splits and arguments.eval_strategy != "no":
        raise RecipeError("training.eval_strategy: there is no validation split. Give one, or `validation_size`.")
    if not run.splits.keys() & {"test", "validation"}:
        raise RecipeError("datasets: there is neither a test nor a validation split to score on.")


def plan_batches(run: Run, arguments: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """The batches that training would take.

    Raises:
        RecipeError: if the mixture cannot be made, or batches of it.
    """
    try:
        return batch_sampler(run.mixture, arguments)
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"training: {error}") from error


def build_trainer(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments) -> MultitaskTrainer:
    """The trainer of a run.

    Raises:
        RecipeError: if the arguments are at odds, or ask for a package that is not there.
    """
    validation = run.splits.get("validation")
    try:
        trainer = MultitaskTrainer(
            model=model,
            args=arguments,
            processing_class=run.tokenizer,
            train_dataset=run.mixture if run.train else None,
            eval_dataset=validation,
        )
    except (ImportError, RuntimeError, ValueError) as error:  # a reporter that is not installed, arguments at odds
        raise RecipeError(f"training: {one_line(error)}") from error
    trainer.recipe = run.recipe.to_yaml()
    return trainer
