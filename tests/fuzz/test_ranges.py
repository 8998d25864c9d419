"""Every numeric field of a recipe has a range: both ends are valid, and what lies just outside of them is refused."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from originals import recipe as plain_recipe
from pydantic import BaseModel
from ranges import RANGES, TRAINING_RANGES, range_of, senseless

from mtl_nlp.balancing.gradient_methods import GRADIENT_METHODS
from mtl_nlp.balancing.registry import WEIGHTINGS, own_parameters
from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.tasks_multitask import TASK_TYPES
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import NOT_IN_RECIPES, RESERVED, training_arguments
from mtl_nlp.training.arguments import MultitaskTrainingArguments

COMPUTED = {"tuned_thresholds", "balanced_weights", "mean", "sd", "names", "labels"}
"""The options of tasks that are computed, or in which numbers are the names of classes."""
SECTIONS = ("datasets", "mixture", "loss", "adapters", "tasks", "training")
SAMPLES = {
    "tasks.*.threshold": "tasks.moods.threshold",
    "tasks.*.pos_weight.*": "tasks.moods.pos_weight.x",
    "tasks.*.class_weights.*": "tasks.topic.class_weights.a",
    "datasets.*.max_rows.*": "datasets.texts.max_rows.train",
    "loss.weights.*": "loss.weights.topic",
    "mixture.probabilities.*": "mixture.probabilities.texts",
}
"""Dotted key with names of any kind -> a key of the originals, if it has more than the name of a task or dataset."""


def numeric_fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the dotted keys of the fields of a section with a number, and of those in its sections."""
    for name, field in model.model_fields.items():
        kinds = set(kinds_in(field.annotation))
        for kind in kinds:
            if issubclass(kind, BaseModel):
                star = ("*",) if dict in kinds else ()
                yield from numeric_fields(kind, (*path, name, *star))
        if {int, float} & kinds:
            yield ".".join((*path, name, *(("*",) if dict in kinds else ())))


def kinds_in(annotation: Any) -> Iterator[type]:
    """Yield the classes in a type, such as `dict` and `int` for `dict[str, int] | None`."""
    if isinstance(annotation, type):
        yield annotation
    for part in (get_origin(annotation), *get_args(annotation)):
        if part is not None and part is not annotation:
            yield from kinds_in(part)


def numeric_options() -> set[str]:
    options = {
        field.name: get_type_hints(task_type)[field.name]
        for task_type in TASK_TYPES.values()
        for field in dataclasses.fields(task_type)
    }
    return {name for name, kind in options.items() if {int, float} & set(kinds_in(kind))} - COMPUTED


def methods() -> Iterator[str]:
    for name in WEIGHTINGS:
        yield from (f"loss.weighting_kwargs.{key}" for key in own_parameters(name))
    for method in GRADIENT_METHODS.values():
        for key, parameter in inspect.signature(method.__init__).parameters.items():
            if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
                yield f"loss.gradients_kwargs.{key}"


def test_every_numeric_field_has_a_range():
    types = get_type_hints(MultitaskTrainingArguments)
    arguments = {
        each.name
        for each in dataclasses.fields(MultitaskTrainingArguments)
        if each.init and {int, float} & set(kinds_in(types[each.name])) and each.name not in RESERVED
    }
    assert arguments - TRAINING_RANGES.keys() == arguments & NOT_IN_RECIPES.keys()
    # A space of `search` has the ranges of its keys, which the search checks.
    fields = [each for each in numeric_fields(Recipe) if not each.startswith("search.space.")]
    assert not [each for each in fields if range_of(each) is None]
    assert not [each for each in methods() if range_of(each) is None]
    known = {place.split(".")[2] for place in RANGES if place.startswith("tasks.*.")}
    assert numeric_options() <= known


def refusal(place: str, value: Any) -> str | None:
    """Return why a recipe is refused in which a field has a value; None if the recipe is accepted."""
    tree = copy.deepcopy(plain_recipe())
    if place == "mixture.probabilities.*":  # the probabilities of all datasets sum to 1
        if value in RANGES[place].ends()[0] and value < 1:
            tree["mixture"] = {"probabilities": {"words": 1 - value}}
        else:
            del tree["datasets"]["words"], tree["tasks"]["pos"], tree["tasks"]["ner"]
    for key, needed in {**RANGES[place].needs, place: value}.items():
        steps = SAMPLES.get(key, key.replace("tasks.*", "tasks.topic").replace("datasets.*", "datasets.texts")).split(
            "."
        )
        section = tree
        for step in steps[:-1]:
            section = section.setdefault(step, {})
        section[steps[-1]] = needed
    try:
        training_arguments(Recipe.from_written(tree))
    except RecipeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("section", [*SECTIONS, "other"])
def test_both_ends_of_a_range_are_accepted_and_the_next_values_are_refused(section):
    wrong = []
    for place in RANGES:
        if place.split(".")[0] != section and (section != "other" or place.split(".")[0] in SECTIONS):
            continue
        inside, outside = RANGES[place].ends()
        outside += [value for value in (10**400, True, "x") if not RANGES[place].holds(value)]
        refused = {value: refusal(place, value) for value in inside}
        wrong += [f"{place} refuses {value!r}: {reason}" for value, reason in refused.items() if reason is not None]
        wrong += [f"{place} accepts {value!r}" for value in outside if refusal(place, value) is None]
    assert not wrong, "\n".join(wrong)


def test_values_without_sense_are_found():
    tree = {"training": {"learning_rate": -1.0, "seed": 3}, "mixture": {"temperature": [1.0, float("nan")]}}
    assert [*senseless(tree)] == ["training.learning_rate: -1.0", "mixture.temperature: nan"]
