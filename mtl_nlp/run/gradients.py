"""The gradient method and the measurement of conflict of a recipe: building, checks, and costs for the plan."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mtl_nlp.balancing.gradient_methods import build_gradient_method
from mtl_nlp.balancing.gradients import GradientMethod, shared_parameters
from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.errors import RecipeError
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.plain_yaml import as_yaml
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.task_gradients import check_gradient_method, check_kept_graph, check_task_gradients

_BACKWARD = 2.0
"""The time of a backward pass, divided by that of a forward pass."""


def gradient_method_of(recipe: Recipe, tasks: Iterable[str]) -> GradientMethod | None:
    """Build the gradient method of a recipe.

    Args:
        recipe: the recipe.
        tasks: the names of all tasks of the model.

    Returns:
        The method; None for the plain sum.

    Raises:
        RecipeError: if torchjd is not installed, or a parameter is not valid.
    """
    loss = recipe.loss
    if loss.gradients is None:
        return None
    return build_gradient_method(loss.gradients, tasks, loss.gradients_kwargs, every=loss.every)


def check_gradients(model: MultitaskModel, recipe: Recipe, arguments: MultitaskTrainingArguments) -> None:
    """Check that the gradients of a model's tasks can be combined and compared as a recipe asks.

    Args:
        model: the model of the run, with or without weights.
        recipe: the recipe.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if the tasks share no trained parameters, a step has one task only, or the arguments do not allow
            gradients per task.
    """
    is_sharded = bool(arguments.fsdp) or arguments.deepspeed is not None
    try:
        if recipe.loss.gradients is not None:
            check_gradient_method(model, arguments, is_sharded=is_sharded)
            if arguments.gradient_accumulation_steps == 1:
                _check_batches(recipe)
    except ValueError as error:
        raise RecipeError(f"loss.gradients: {error}") from error
    try:
        if arguments.conflict_every is not None:
            check_task_gradients(model, is_sharded=is_sharded)
            check_kept_graph(arguments)
            if recipe.loss.gradients is None or arguments.gradient_accumulation_steps == 1:
                _check_batches(recipe)
    except ValueError as error:
        raise RecipeError(f"analysis.conflict_every: {error}") from error


def _check_batches(recipe: Recipe) -> None:
    """Check that a batch can have rows of several tasks.

    Raises:
        ValueError: if a batch has one task only.
    """
    if recipe.has_batches_of_one_task:
        raise ValueError(
            "a homogeneous batch of these datasets has one task, and gradients of several tasks are needed. Set "
            "`mixture.batching: mixed`."
        )


def describe_gradients(
    model: MultitaskModel, mixture: TaskMixture, recipe: Recipe, arguments: MultitaskTrainingArguments
) -> str:
    """Return the costs of the gradient method and of the measurements of conflict; empty without both.

    Args:
        model: the model of the run, with or without weights.
        mixture: the mixture.
        recipe: the recipe.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: see `check_gradients`.
    """
    check_gradients(model, recipe, arguments)
    loss, conflict_every = recipe.loss, arguments.conflict_every
    lines = []
    if loss.gradients is not None:
        backward = mixture.mean_probabilities @ [_mean_labels(each) for each in mixture.datasets.values()]
        times = 1.0 + ((1.0 + _BACKWARD * backward) / (1.0 + _BACKWARD) - 1.0) / loss.every
        size = sum(parameter.numel() for parameter in shared_parameters(model))
        count = len(model.tasks)
        given = ", ".join(f"{key} {as_yaml(value)}" for key, value in loss.gradients_kwargs.items())
        method = f"{loss.gradients} ({given})" if given else loss.gradients
        lines.append(
            f"gradients: {method} in {_each(loss.every)}: a backward pass over each row per label, "
            f"{backward:.2f} on average, about {times:.2f} times the time of the plain sum; {count} gradients of "
            f"{size:,} shared parameters, {size * count * 4 / 1e6:,.0f} MB."
        )
    if conflict_every is not None:
        own = loss.gradients is not None and conflict_every % loss.every == 0
        passes = len(model.tasks) * _BACKWARD / (1.0 + _BACKWARD)
        share = passes / (conflict_every * arguments.gradient_accumulation_steps)
        cost = (
            "from the gradients of the gradient method"
            if own
            else f"{len(model.tasks)} backward passes over one batch, about {share:.1%} more training time"
        )
        lines.append(f"conflict: measured in {_each(conflict_every)}, {cost}.")
    return "\n".join(lines)


def _each(every: int) -> str:
    return "each step" if every == 1 else f"one of {every} steps"


def _mean_labels(encoded: EncodedDataset | EncodedStream) -> float:
    """Return the mean number of tasks for which a row has a label; for a stream, the number of its tasks."""
    if isinstance(encoded, EncodedStream):
        return float(len(encoded.feeds))
    columns = encoded.windows.data
    return sum(float(np.mean(columns.column(LABEL_PREFIX + task).is_valid().to_numpy())) for task in encoded.feeds)
