"""The model, the batches and the trainer of a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import set_seed

from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.hub.outside import Loading, check_size
from mtl_nlp.messages import one_line
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import adapt
from mtl_nlp.run.gradients import check_gradients, gradient_method_of
from mtl_nlp.run.prepare import Run
from mtl_nlp.run.weighting import loss_weighting
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.headroom import check_headroom
from mtl_nlp.training.schedule import batch_sampler
from mtl_nlp.training.trainer import MultitaskTrainer


def build_model(run: Run) -> MultitaskModel:
    """Build the model of a run: an encoder or a trained model, with new heads and adapters.

    `training.seed` seeds the new weights.

    Args:
        run: the run.

    Raises:
        RecipeError: if the encoder cannot be loaded, or the recipe's adapters or frozen parts do not fit the encoder.
        ModelError: if a trained model cannot be loaded.
    """
    set_seed(run.recipe.training.get("seed", 42))
    return _apply_recipe(load_start(run.recipe, run.config, list(run.tasks.values())), run)


def load_start(recipe: Recipe, config: MultitaskConfig, tasks: Sequence[Task]) -> MultitaskModel:
    """Load the model that the training of a recipe starts from, without the recipe's adapters.

    Args:
        recipe: the recipe.
        config: the configuration from `load_encoder_parts`.
        tasks: the tasks of the new heads of a pretrained encoder. A trained multitask model has its own heads only.

    Raises:
        RecipeError: if the encoder cannot be loaded.
        ModelError: if a trained model cannot be loaded.
    """
    options = copy.deepcopy(recipe.model_init_kwargs)  # the libraries may change them, and the recipe is published
    if config.name_or_path:  # a trained multitask model
        return load_model(recipe.encoder, **{"dtype": torch.float32, **options})
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        check_size(config.text_config, recipe.encoder, **options)
        return MultitaskModel.from_encoder(
            recipe.encoder, tasks, max_length=config.max_length, stride=config.stride, **options
        )


def build_meta_model(run: Run) -> MultitaskModel:
    """Build the model of `build_model` on the meta device, without weights.

    Args:
        run: the run.

    Raises:
        RecipeError: if the recipe's adapters or frozen parts do not fit the model.
    """
    with torch.device("meta"):
        return _apply_recipe(MultitaskModel(copy.deepcopy(run.config)), run)


def _apply_recipe(model: MultitaskModel, run: Run) -> MultitaskModel:
    for name, task in run.tasks.items():
        if name not in model.tasks:
            model.add_task(task)
        model.tasks[name] = task  # with the scores that the recipe asks for
    model.config.tasks = [task.to_dict() for task in model.tasks.values()]
    model.config.max_length, model.config.stride = run.config.max_length, run.config.stride
    adapt(model, run.recipe)
    return model


def check_splits(run: Run, arguments: MultitaskTrainingArguments) -> None:
    """Check that a run has splits for the evaluation in training and for the final scores.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if a split is missing.
    """
    if "validation" not in run.splits and arguments.eval_strategy != "no":
        raise RecipeError(
            "training.eval_strategy: there is no validation split. Add one, set `validation_size` in a dataset, or "
            "set `training.eval_strategy: no`."
        )
    if not run.splits.keys() & {"test", "validation"}:
        raise RecipeError(
            "datasets: there is neither a test nor a validation split to score the model on. Add one, or set "
            "`validation_size` in a dataset."
        )


def plan_batches(run: Run, arguments: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """Return the sampler of the training batches.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if the mixture or its batches cannot be built.
    """
    try:
        sampler = batch_sampler(run.mixture, arguments)
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"training: {error}") from error
    try:
        check_headroom(sampler, run.splits.get("validation", {}), arguments)
    except ValueError as error:
        raise RecipeError(f"mixture.headroom: {error}") from error
    return sampler


def build_trainer(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments) -> MultitaskTrainer:
    """Build the trainer of a run.

    Args:
        run: the run.
        model: the model of the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if arguments contradict each other, or need a package that is not installed.
    """
    validation = run.splits.get("validation")
    if run.train:
        check_gradients(model, run.recipe, arguments)
    weighting = loss_weighting(run.recipe, run.tasks) if run.train else None
    try:
        trainer = MultitaskTrainer(
            model=model,
            args=arguments,
            processing_class=run.tokenizer,
            train_dataset=run.mixture if run.train else None,
            eval_dataset=validation,
            gradient_method=gradient_method_of(run.recipe, model.tasks) if run.train else None,
            loss_weighting=weighting,
        )
    except (ImportError, RuntimeError, ValueError) as error:  # ImportError: a package for `report_to` is missing
        raise error if isinstance(error, RecipeError) else RecipeError(f"training: {one_line(error)}") from error
    trainer.recipe = run.recipe.to_yaml()
    return trainer
