"""The training arguments of a recipe."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.argument_types import convert, enumerated
from mtl_nlp.run.gradients import gradient_method_of
from mtl_nlp.run.other_names import NOT_IN_RECIPES, OTHER_NAMES
from mtl_nlp.run.refusal import REFUSALS, refused
from mtl_nlp.run.settings import check_settings
from mtl_nlp.run.weighting import check_weighting, check_weighting_arguments
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.display import shows_bars
from mtl_nlp.training.ranges import RANGES

RESERVED = {
    "output_dir": "output_dir",
    "loss_weights": "loss.weights",
    "loss_scale": "loss.scale",
    "adapter_pull": "adapters.pull",
    "freeze_patience": "loss.freeze_when_overfit",
    "on_nonfinite": "loss.on_nonfinite",
    "conflict_every": "analysis.conflict_every",
}
"""Training argument -> the recipe key that replaces the argument."""

_NOTHING_WRITTEN = {
    "push_to_hub": False,
    "report_to": "none",
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
    "lr_scheduler_type": "linear",  # others may need an evaluation strategy
    "lr_scheduler_kwargs": None,
}


def training_arguments(recipe: Recipe) -> MultitaskTrainingArguments:
    """Build training arguments from a recipe, and check its `baselines`, its loss weighting and its gradient method.

    Args:
        recipe: the recipe.

    Raises:
        RecipeError: if a field is unknown or a value is not valid.
    """
    # Before the loss weighting, which has the seed of the training.
    _checked_values(recipe, recipe.training, "training")
    check_weighting(recipe)
    gradient_method_of(recipe, recipe.tasks)
    # `TrainingArguments` for the baselines would change this process, such as its precision in the environment.
    _checked_values(recipe, recipe.baselines.training, "baselines", "training")
    for task, own in recipe.baselines.tasks.items():
        _checked_values(recipe, own.training, "baselines", "tasks", task, "training")
    arguments = _arguments(recipe, recipe.training, recipe.output_dir)
    check_settings(arguments)
    check_weighting_arguments(recipe, arguments)
    return arguments


def evaluation_arguments(recipe: Recipe, folder: Path) -> MultitaskTrainingArguments:
    """Build arguments for a trainer that scores a model and creates no file, folder or Hub repository.

    Args:
        recipe: the recipe, whose precision, batch size and data loading are kept.
        folder: an existing folder for `output_dir`, which Trainer creates even if it writes no file.

    Raises:
        RecipeError: if a field is unknown or a value is not valid.
    """
    return _arguments(recipe, {**recipe.training, **_NOTHING_WRITTEN}, str(folder), is_evaluation=True)


def _arguments(
    recipe: Recipe, training: Mapping[str, Any], output_dir: str, *, is_evaluation: bool = False
) -> MultitaskTrainingArguments:
    # Trainer would decide by the level of the log messages, which the command line silences.
    values = {"disable_tqdm": not shows_bars(), **_checked_values(recipe, training, "training")}
    if not {"bf16", "fp16"} & values.keys():
        values["precision"] = values.get("precision") or "auto"
    freeze = recipe.loss.freeze_when_overfit
    if freeze is not None and not is_evaluation and values.get("eval_strategy", "no") == "no":
        raise RecipeError(
            "loss.freeze_when_overfit: needs evaluations during training. Set `training.eval_strategy` to `epoch` or "
            "`steps`, or leave out `freeze_when_overfit`."
        )
    try:
        return MultitaskTrainingArguments(
            **values,
            output_dir=output_dir,
            loss_weights=dict(recipe.loss.weights),
            loss_scale=recipe.loss.scale,
            on_nonfinite=recipe.loss.on_nonfinite,
            adapter_pull=0.0 if recipe.adapters is None else recipe.adapters.pull,
            freeze_patience=None if freeze is None or is_evaluation else freeze.patience,
            conflict_every=recipe.analysis.conflict_every,
        )
    except REFUSALS as error:  # such as an ImportError, if deepspeed is not installed
        raise refused(error) from error


_CHOICES = {"include_num_input_tokens_seen": ("no", "all", "non_padding")}
"""Field -> values that Trainer documents and does not check."""

_NEAREST = dict.fromkeys(("adam", "adamw"), "Did you mean 'adamw_torch'?")
"""Usual names of optimizers -> a sentence on the name in transformers, which is not the nearest by its letters."""

_WIDER = {"fsdp": bool | str | None}
"""Field -> a type that Trainer accepts and does not declare."""


def _checked_values(recipe: Recipe, training: Mapping[str, Any], *place: str) -> dict[str, Any]:
    """Return training arguments with each value converted to the type of its field, see `convert`.

    Args:
        recipe: the recipe.
        training: the training arguments.
        place: the keys that lead to the section in the recipe.
    """
    where = ".".join(place)
    valid = {field.name: field.metadata for field in dataclasses.fields(MultitaskTrainingArguments) if field.init}
    types = get_type_hints(MultitaskTrainingArguments) | _WIDER
    values: dict[str, Any] = {}
    for key, value in copy.deepcopy(dict(training)).items():  # Trainer changes some of its arguments
        if key not in valid:
            hint = OTHER_NAMES.get(key) or did_you_mean(key, valid)
            raise RecipeError(f"{where}.{key}: no such training argument. {hint}")
        if key in RESERVED:
            raise RecipeError(f"{where}.{key}: set the recipe key `{RESERVED[key]}` instead.")
        if key in NOT_IN_RECIPES:
            raise RecipeError(f"{where}.{key}: has no effect. {NOT_IN_RECIPES[key]}")
        if key == "debug" and isinstance(value, list):  # Trainer checks only texts
            value = " ".join(map(str, value))
        if value is False and key.endswith("_strategy"):  # an unquoted `no` in YAML
            value = "no"
        try:
            values[key] = convert(value, types[key], recipe.text_of(*place, key))
        except ValueError as error:
            raise RecipeError(f"{where}.{key}: {error}") from None
        choices = _CHOICES.get(key) or valid[key].get("choices")
        if choices is None and key != "debug":  # which may be several options
            choices = enumerated(types[key])
        if choices is not None and isinstance(values[key], str) and values[key] not in choices:
            hint = _NEAREST.get(values[key].lower()) or did_you_mean(values[key], choices)
            raise RecipeError(f"{where}.{key}: no such value {values[key]!r:.80}. {hint}")
        problem = RANGES[key].problem(values[key]) if key in RANGES and values[key] is not None else None
        if problem is not None:
            raise RecipeError(f"{where}.{key}: {problem}")
    return values
