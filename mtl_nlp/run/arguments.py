"""Training arguments from the `training` and `loss` sections of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def training_arguments(recipe: Recipe) -> MultitaskTrainingArguments:
    """The recipe's `training` and `loss` sections as arguments.

    Raises:
        RecipeError: if a field is unknown or a value is not valid.
    """
    valid = {f.name for f in dataclasses.fields(MultitaskTrainingArguments) if f.init}
    reserved = {
        "output_dir": "output_dir",
        "loss_weights": "loss.weights",
        "loss_scale": "loss.scale",
        "adapter_pull": "adapters.pull",
    }
    for key in recipe.training:
        if key not in valid:
            raise RecipeError(f"training.{key}: no such training argument. {did_you_mean(key, valid)}")
        if key in reserved:
            raise RecipeError(f"training.{key}: give it as `{reserved[key]}`.")
    values = _checked_values(recipe.training)
    try:
        return MultitaskTrainingArguments(
            **values,
            output_dir=recipe.output_dir,
            loss_weights=dict(recipe.loss.weights),
            loss_scale=recipe.loss.scale,
            adapter_pull=0.0 if recipe.adapters is None else recipe.adapters.pull,
        )
    except (ValueError, TypeError, ImportError) as error:  # deepspeed and others are not installed with mtl_nlp
        raise RecipeError(f"training: {one_line(error)}") from error


_NUMBERS: dict[Any, type[int] | type[float]] = {int: int, float: float, int | None: int, float | None: float}

_AT_LEAST_ONE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")


def _checked_values(training: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their types: TrainingArguments takes anything, and what is wrong fails deep inside.

    YAML 1.1 reads an unquoted `no` as False, as which no strategy is known, and `2e-4` as a string.
    """
    types = get_type_hints(MultitaskTrainingArguments)
    values: dict[str, Any] = {}
    for key, value in training.items():
        if value is False and key.endswith("_strategy"):
            value = "no"
        number = _NUMBERS.get(types[key])
        if number is not None and not (value is None and types[key] is not number):
            try:
                value = number(value) if isinstance(value, str) else value
            except ValueError:
                raise RecipeError(f"training.{key}: expected a number, found {value!r}.") from None
            if isinstance(value, bool) or not isinstance(value, int | number):
                kind = "whole number" if number is int else "number"
                raise RecipeError(f"training.{key}: expected a {kind}, found {value!r}.")
        if key in _AT_LEAST_ONE and value < 1:
            raise RecipeError(f"training.{key}: should be at least 1, found {value}.")
        values[key] = value
    if values.get("num_train_epochs", 1) <= 0:
        raise RecipeError(f"training.num_train_epochs: should be above 0, found {values['num_train_epochs']}.")
    return values
