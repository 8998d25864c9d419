"""The loss weighting of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.dwa import DynamicWeightAverage
from mtl_nlp.balancing.registry import WEIGHTINGS, build_weighting, own_parameters
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.plain_yaml import as_yaml
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.argument_types import seed_of
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.defaults import default_loss_weights
from mtl_nlp.training.task_gradients import check_kept_graph


def check_weighting(recipe: Recipe) -> None:
    """Check the loss weighting of a recipe without its data.

    Raises:
        RecipeError: if the weighting or its parameters are not valid, or do not fit the tasks and the mixture.
    """
    loss_weighting(recipe, {name: recipe.task(name) for name in recipe.tasks})
    method = WEIGHTINGS[recipe.loss.weighting]
    compares = issubclass(method, ComparingWeighting) and method.compares_within_steps()
    if compares and recipe.has_batches_of_one_task:
        raise RecipeError(
            f"loss.weighting: {recipe.loss.weighting} compares the tasks of a step, and a homogeneous batch of these "
            f"datasets has one task. Set `mixture.batching: mixed`, or a different weighting."
        )


def check_weighting_arguments(recipe: Recipe, arguments: MultitaskTrainingArguments) -> None:
    """Check that the training arguments allow the loss weighting of a recipe.

    Raises:
        RecipeError: if the weighting needs the norms of gradients, and the arguments do not allow them.
    """
    if "gradient_norms" not in WEIGHTINGS[recipe.loss.weighting].needs:
        return
    try:
        check_kept_graph(arguments)
    except ValueError as error:
        raise RecipeError(f"loss.weighting: {error}") from error


def loss_weighting(recipe: Recipe, tasks: Mapping[str, Task]) -> LossWeighting | None:
    """Return the loss weighting of a recipe; None for `static`, whose weights are a training argument.

    Args:
        recipe: the recipe.
        tasks: the tasks by name. Tasks that the recipe does not train are ignored.

    Raises:
        RecipeError: if the weighting or its parameters are not valid.
    """
    loss = recipe.loss
    trained = {name: tasks[name] for name in recipe.tasks}
    try:
        built = build_weighting(loss.weighting, trained, loss.weights, _parameters(recipe))
    except ValueError as error:
        raise RecipeError(f"loss.{error}") from error
    return None if loss.weighting == "static" else built


def describe_weighting(recipe: Recipe, arguments: MultitaskTrainingArguments) -> str:
    """Return lines about the loss weighting, its parameters and costs, and what changes weights in training.

    Args:
        recipe: the recipe.
        arguments: the training arguments of the run.

    Returns:
        The lines; empty for default weights that nothing changes.
    """
    lines = [_static(recipe) if recipe.loss.weighting == "static" else _method(recipe, arguments)]
    lines += _replaced_defaults(recipe)
    freeze = recipe.loss.freeze_when_overfit
    if freeze is not None:
        evaluations = "evaluation" if freeze.patience == 1 else "evaluations in a row"
        lines.append(
            f"freezing: a task has the weight 0 from the end of {freeze.patience} {evaluations} without a new best "
            f"validation score on."
        )
    if recipe.loss.on_nonfinite == "skip":
        lines.append(
            "on_nonfinite: the share of a task whose loss is infinite or NaN is left out of the step; the training "
            "ends after ten such steps in a row."
        )
    return "\n".join(filter(None, lines))


def _static(recipe: Recipe) -> str:
    given = [
        f"{task} {weight[0]:g} to {weight[1]:g}, linearly over the training"
        if isinstance(weight, list)
        else f"{task} {weight:g}"
        for task, weight in recipe.loss.weights.items()
    ]
    return f"loss weights: {'; '.join(given)}." if given else ""


def _replaced_defaults(recipe: Recipe) -> list[str]:
    """Return a note if a weighting chooses weights for tasks that have a default weight otherwise."""
    defaults = default_loss_weights({name: recipe.task(name) for name in recipe.tasks})
    if recipe.loss.weighting == "static" or not defaults:
        return []
    weights = ", ".join(f"{weight:g} of {task}" for task, weight in defaults.items())
    return [
        f"note: {recipe.loss.weighting} chooses the weights of all tasks, so the default of loss.weights does not "
        f"apply: {weights}."
    ]


def _method(recipe: Recipe, arguments: MultitaskTrainingArguments) -> str:
    """Return a line with the loss weighting, its parameters and its costs."""
    weighting = loss_weighting(recipe, {name: recipe.task(name) for name in recipe.tasks})
    assert weighting is not None  # since the weighting is not `static`
    name = recipe.loss.weighting
    values = {**own_parameters(name), **_parameters(recipe)}
    parameters = ", ".join(f"{key} {as_yaml(value)}" for key, value in values.items())
    line = f"loss weighting: {name}{f' ({parameters})' if parameters else ''}; cost: {_cost(weighting, arguments)}."
    if isinstance(weighting, DynamicWeightAverage) and arguments.max_steps <= 0 and arguments.num_train_epochs <= 2:
        line += (
            f"\nnote: dwa keeps all weights at 1 in the first two epochs, and the training has "
            f"{arguments.num_train_epochs:g}. Set training.num_train_epochs to 3 or more, or choose a different "
            f"weighting."
        )
    return line


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters that a recipe gives its weighting; a seed is that of the training by default."""
    has_seed = "seed" in own_parameters(recipe.loss.weighting)
    return ({"seed": seed_of(recipe)} if has_seed else {}) | recipe.loss.weighting_kwargs


def _cost(weighting: LossWeighting, arguments: MultitaskTrainingArguments) -> str:
    costs = ["one parameter per task"] if any(True for _ in weighting.parameters()) else []
    if "losses" in weighting.needs and arguments.gradient_accumulation_steps > 1:
        always = "losses" in weighting.needs_at(arguments.max_steps if arguments.max_steps > 0 else 2**31)
        when = "before each step" if always else "before each of the first steps"
        costs.append(f"a forward pass without gradients {when}, since a step has several micro-batches")
    if "second_forward" in weighting.needs:
        costs.append("a second forward pass without gradients after each step")
    if "gradient_norms" in weighting.needs:
        costs.append("a backward pass through the encoder's last layer per task and micro-batch")
    return ", ".join(costs) or "none"
