"""The space of a search: recipe keys with their values, checked by the recipe's own rules before the first trial."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.file import section_of
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.searching import RangeRecipe
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.prepare import Run
from mtl_nlp.searching.shipped import shipped_value

if TYPE_CHECKING:
    import optuna

Scalar = str | float | bool | None
"""A value that Optuna stores."""

Space = Mapping[str, RangeRecipe | list[Any]]
"""Key -> its values, as in the section `search` of a recipe."""

_NOT_SEARCHED = {
    "output_dir": "it has no effect on the scores",
    "baselines": "it has no effect on the recipe's own run",
    "search": "it has no effect on a training",
    "card": "it has no effect on the scores",
    "imports": "code is not searched",
    "analysis": "it has no effect on the scores",
    "training.seed": "the best of several seeds is luck. The search runs the best trials again with fresh seeds",
    "training.data_seed": "the best of several seeds is luck",
}
"""Key or section -> the reason why a search leaves it alone."""


@dataclass(frozen=True)
class Dimension:
    """A searched key with its values.

    Attributes:
        key: the key, such as `training.learning_rate`.
        values: the range, or the list of values.
        shipped: the value that the recipe as shipped has, or None if that value is not one of the space.
        has_shipped: whether the recipe as shipped has a value of the space, which may be null.
    """

    key: str
    values: RangeRecipe | list[Any]
    shipped: Scalar = None
    has_shipped: bool = False

    @property
    def ends(self) -> list[Any]:
        """The values to check: both ends of a range, or all values of a list."""
        values = self.values
        return list(values) if isinstance(values, list) else [values.low, values.high]

    def suggest(self, trial: optuna.Trial) -> Any:
        """Return the value of a trial, rounded to four digits."""
        values = self.values
        if isinstance(values, list):
            labels = {label_of(each): each for each in values}
            return labels[trial.suggest_categorical(self.key, list(labels))]
        if values.is_whole:
            low, high, step = int(values.low), int(values.high), int(values.step or 1)
            return trial.suggest_int(self.key, low, high, step=step, log=values.log)
        found = trial.suggest_float(self.key, values.low, values.high, step=values.step, log=values.log)
        # The recipe for reading and training has the same number as the trial. Rounding does not leave the range.
        return min(max(float(f"{found:.4g}"), values.low), values.high)


@dataclass(frozen=True)
class CheckedSpace:
    """A space whose values the recipe accepts.

    Attributes:
        dimensions: the keys, those of sections before those inside of them.
        left_out: sentences about the keys and values of the default space that the recipe refuses.
    """

    dimensions: list[Dimension]
    left_out: list[str] = field(default_factory=list)

    def suggest(self, trial: optuna.Trial, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the values of a trial.

        Args:
            trial: the trial.
            keys: the keys to choose; all by default. A key inside a section that is null is left out.
        """
        chosen: dict[str, Any] = {}
        for each in self.dimensions:
            parents = [key for key in chosen if each.key.startswith(f"{key}.")]
            if (keys is None or each.key in keys) and all(chosen[key] is not None for key in parents):
                chosen[each.key] = each.suggest(trial)
        return chosen

    def shipped(self) -> dict[str, Scalar]:
        """Return the values of the recipe as shipped, for the keys whose space has them."""
        return {each.key: each.shipped for each in self.dimensions if each.has_shipped}

    def describe(self) -> dict[str, Any]:
        """Return the space as plain data."""
        return {
            each.key: each.values if isinstance(each.values, list) else each.values.model_dump(exclude_defaults=True)
            for each in self.dimensions
        }


def label_of(value: Any) -> Scalar:
    """Return a value of a list as Optuna stores it: texts, numbers, booleans and null as they are, others as JSON."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


def with_values(written: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain data with the values of some keys.

    Args:
        written: the recipe as plain data.
        values: key, such as `loss.weights.ner` -> value. Sections come before the keys inside of them.

    Raises:
        RecipeError: if a key continues after a value that is not a section.
    """
    data = copy.deepcopy(dict(written))
    for key, value in values.items():
        section, last = section_of(data, key, f"search.space.{key}")
        section[last] = copy.deepcopy(value)
    return data


def recipe_with(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with the values of some keys, without the section `search`.

    Raises:
        RecipeError: if the recipe is not valid with these values.
    """
    written = with_values(recipe.as_written(), values)
    written.pop("search", None)
    return Recipe.from_written(written, allow_code=bool(recipe.own_code))


def check_space(space: Space, run: Run, *, is_default: bool = False) -> CheckedSpace:
    """Check every value of a space alone, by the rules of the recipe, and find the values of the recipe as shipped.

    Args:
        space: the space.
        run: the recipe as shipped, with its data.
        is_default: whether values that the recipe refuses are left out instead of being an error.

    Raises:
        RecipeError: if a key does not exist or is not searched, or the recipe refuses a value.
    """
    dimensions, left_out = [], []
    for key in sorted(space, key=lambda each: each.count(".")):
        _check_key(key, run.recipe)
        values = space[key]
        kept, built = [], []
        for value in Dimension(key, values).ends:
            try:
                built.append(_checked(run, key, value))
                kept.append(value)
            except RecipeError as error:
                if not is_default:
                    raise RecipeError(f"search.space.{key}: {value!r:.80} cannot be tried. {error}") from error
                left_out.append(f"{key}: {value!r:.80} is not searched: {error}")
        if isinstance(values, list):
            values = kept
        if len(kept) >= 2:
            found = _find_shipped(Dimension(key, values), run, built)
            dimensions.append(Dimension(key, values, found[0] if found else None, bool(found)))
    return CheckedSpace(dimensions, left_out)


def _check_key(key: str, recipe: Recipe) -> None:
    for without, reason in _NOT_SEARCHED.items():
        if key == without or key.startswith(f"{without}."):
            raise RecipeError(f"search.space.{key}: this key is not searched: {reason}.")
    section, _, rest = key.partition(".")
    if section not in type(recipe).model_fields:
        raise RecipeError(f"search.space.{key}: no such key. {did_you_mean(section, type(recipe).model_fields)}")
    named: dict[str, Collection[str]] = {"tasks": recipe.tasks, "datasets": recipe.datasets}
    names, name = named.get(section), rest.partition(".")[0]
    if names is not None and name not in names:
        raise RecipeError(f"search.space.{key}: {section} has no {name!r:.80}. {did_you_mean(name, names)}")


def _checked(run: Run, key: str, value: Any) -> Recipe:
    recipe = recipe_with(run.recipe, {key: value})
    training_arguments(recipe)
    if key.partition(".")[0] == "adapters":
        check_encoder(recipe, run.config.text_config)
    return recipe


def _find_shipped(dimension: Dimension, run: Run, built: Sequence[Recipe]) -> list[Scalar]:
    """Return a list with the value that the recipe as shipped has for a key, or an empty list outside of the space."""
    is_known, value = shipped_value(run, dimension.key)
    values = dimension.values
    if isinstance(values, list):
        own = run.recipe.model_dump(exclude={"search"})
        same = [
            each for each, recipe in zip(values, built, strict=True) if recipe.model_dump(exclude={"search"}) == own
        ]
        equal = [each for each in values if is_known and each == value and type(each) is type(value)]
        return [label_of(each) for each in [*same, *equal][:1]]
    if not is_known or isinstance(value, bool) or not isinstance(value, int | float):
        return []
    steps = (value - values.low) / values.step if values.step else 0.0
    is_on_step = abs(steps - round(steps)) < 1e-9 and (not values.is_whole or float(value).is_integer())
    is_inside = values.low <= value <= values.high and is_on_step
    return [int(value) if values.is_whole else float(value)] if is_inside else []
