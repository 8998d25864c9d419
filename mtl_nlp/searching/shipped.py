"""The value of a key in the recipe as shipped, also where a default gives it, and the default space around them."""

from __future__ import annotations

from typing import Any

from mtl_nlp.recipe.searching import RangeRecipe
from mtl_nlp.recipe.variables import value_at
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.defaults import HEAD_FACTOR, default_loss_weights, head_learning_rate

_AROUND = 4.0
"""The factor from a learning rate to the ends of its range."""

_LOWEST_WEIGHT, _HIGHEST_WEIGHT = 0.1, 3.0
"""The factors from the loss weight of a task to the ends of its range. Only the ratio of the weights matters."""

_HIGHEST_TEMPERATURE = 5.0
_MOST_TASKS_ALONE = 4
"""The number of tasks up to which the default space has an adapter for each task alone."""

_POOLINGS = ("cls", "mean")
_ADAPTERS = {"r": 8, "alpha": 16, "target_modules": "all-linear"}


def shipped_value(run: Run, key: str) -> tuple[bool, Any]:
    """Return whether the value of a key in the recipe as shipped is known, and the value.

    The value of a default counts where the recipe with this value trains the same model.

    Args:
        run: the recipe as shipped, with its data.
        key: the key, such as `training.learning_rate`.
    """
    section, _, rest = key.partition(".")
    place = tuple(key.split("."))
    given = value_at(run.recipe.model_dump(), place)
    if given is not None:
        return True, given
    if section == "training":
        return _training_value(run, rest)
    if place[:2] == ("loss", "weights") and run.recipe.loss.weighting == "static":
        return True, _weights(run).get(place[-1])
    if section == "tasks" and place[2:] == ("pooling",) and place[1] in run.tasks:
        return True, run.tasks[place[1]].to_dict().get("pooling")
    return False, None


def _training_value(run: Run, name: str) -> tuple[bool, Any]:
    arguments = training_arguments(run.recipe)
    if name == "head_learning_rate":
        # A given rate is also that of the heads of a trained model, for which the default does not count.
        rate = head_learning_rate(arguments, list(run.recipe.tasks))
        return (rate is not None and not run.trained_heads), rate
    if name == "adapter_learning_rate":
        return run.recipe.adapters is not None, arguments.learning_rate
    value = vars(arguments).get(name)
    return value is not None, value


def _weights(run: Run) -> dict[str, Any]:
    tasks = {name: run.tasks[name] for name in run.recipe.tasks}
    return {**dict.fromkeys(tasks, 1.0), **default_loss_weights(tasks), **run.recipe.loss.weights}


def default_space(run: Run) -> dict[str, RangeRecipe | list[Any]]:
    """Return a space around the settings of a recipe.

    The space has the learning rates, the length of the training, the loss weight of each task, the temperature, the
    pooling of tasks on texts, and the adapters: none, one per task, or one for a single task.

    Args:
        run: the recipe as shipped, with its data.
    """
    recipe, arguments = run.recipe, training_arguments(run.recipe)
    space = _rates_and_length(run, arguments)
    tasks = list(recipe.tasks)
    if len(tasks) > 1 and recipe.loss.weighting == "static":
        for name, weight in _weights(run).items():
            if isinstance(weight, int | float):
                space[f"loss.weights.{name}"] = _around(weight or 1.0, _LOWEST_WEIGHT, _HIGHEST_WEIGHT)
    temperature = recipe.mixture.temperature
    is_mixed = len(recipe.datasets) > 1 and recipe.mixture.probabilities is None
    if is_mixed and isinstance(temperature, int | float) and temperature < float("inf"):
        ends = min(1.0, temperature), max(_HIGHEST_TEMPERATURE, temperature)
        space["mixture.temperature"] = RangeRecipe(low=ends[0], high=ends[1], log=True)
    for name in tasks:
        own = run.tasks[name].to_dict().get("pooling")
        if own is not None and name not in run.trained_heads:
            space[f"tasks.{name}.pooling"] = list(dict.fromkeys([own, *_POOLINGS]))
    if len(tasks) > 1 and not recipe.freeze and not run.trained_heads:
        space["adapters"] = _sharing(run)
    return space


def _rates_and_length(run: Run, arguments: MultitaskTrainingArguments) -> dict[str, RangeRecipe | list[Any]]:
    rate, tasks = arguments.learning_rate, list(run.recipe.tasks)
    space: dict[str, RangeRecipe | list[Any]] = {}
    if rate > 0:
        space["training.learning_rate"] = _around(rate, 1 / _AROUND, _AROUND)
        of_heads = head_learning_rate(arguments, tasks)
        # A task alone has one rate for all layers by default. A rate of its own for the head is worth a try.
        ends = (1.0, 2 * HEAD_FACTOR) if of_heads is None else (1 / _AROUND, _AROUND)
        space["training.head_learning_rate"] = _around(of_heads or rate, *ends)
        if run.recipe.adapters is not None:
            of_adapters = arguments.adapter_learning_rate or rate
            space["training.adapter_learning_rate"] = _around(of_adapters, 1 / _AROUND, _AROUND)
    if arguments.max_steps > 0:
        steps = arguments.max_steps
        space["training.max_steps"] = RangeRecipe(low=max(1, steps // 2), high=max(2, 2 * steps))
    else:
        epochs = arguments.num_train_epochs
        if float(epochs).is_integer():
            space["training.num_train_epochs"] = RangeRecipe(low=max(1, int(epochs) // 2), high=max(2, 2 * int(epochs)))
        else:
            space["training.num_train_epochs"] = _around(epochs, 0.5, 2.0)
    return space


def _around(value: float, low: float, high: float) -> RangeRecipe:
    return RangeRecipe(low=float(f"{low * value:.4g}"), high=float(f"{high * value:.4g}"), log=True)


def _sharing(run: Run) -> list[Any]:
    """Return the ways of sharing: that of the recipe, no adapters, one per task, and one for each task alone."""
    own = run.recipe.as_written().get("adapters")
    options = _ADAPTERS if own is None else {key: value for key, value in own.items() if key not in {"tasks", "shared"}}
    tasks = list(run.recipe.tasks)
    alone = [{**options, "tasks": [name]} for name in tasks] if len(tasks) <= _MOST_TASKS_ALONE else []
    found: list[Any] = []
    for each in [own, None, options, *alone]:
        if each not in found:
            found.append(each)
    return found
