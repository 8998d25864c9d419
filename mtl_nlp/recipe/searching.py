"""The schema of the section `search` of a recipe: the keys and values that a search tries. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.section import Section

QUALITIES = ("mtl_score", "delta_m")
"""The objectives over all tasks, of which a higher value is better."""

COSTS = ("seconds", "passes")
"""The objectives of which a lower value is better."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class RangeRecipe(Section):
    """A range of numbers. Both ends are part of the range; two whole ends stand for whole numbers.

    Attributes:
        low: the least number.
        high: the largest number.
        log: whether the numbers are drawn evenly on a logarithmic scale.
        step: the distance from one number to the next; any number of the range without a step.
    """

    low: Annotated[int | _Number, OnResume.IRRELEVANT]
    high: Annotated[int | _Number, OnResume.IRRELEVANT]
    log: Annotated[bool, OnResume.IRRELEVANT] = False
    step: Annotated[int | _Number | None, OnResume.IRRELEVANT] = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> RangeRecipe:
        if self.low >= self.high:
            raise ValueError(f"`low` should be below `high`. Found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"`log` needs a `low` above 0. Found {self.low}")
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` exclude each other. Leave out one of the two")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"`step` should be at most `high` - `low`. Found {self.step}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the range has whole numbers only."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))


class SearchRecipe(Section):
    """The search for the settings of a recipe, by `mtl-nlp search`. The section has no effect on a training.

    Attributes:
        space: key, such as `training.learning_rate` or `loss.weights.ner` -> `{low, high, log, step}`, or a list of
            values. By default a space around the recipe's own settings.
        objective: the value that the search improves, on the validation splits: `mtl_score`; `delta_m`, the mean
            difference in percent to the best model of each task alone; a task, for its primary score; `seconds` of
            training; or `passes`, the encoder passes that answer a text. With a list the search keeps all trials that
            no other trial beats in every value.
        sampler: the method of Optuna that chooses the values: `tpe` (Bergstra et al. 2011) or `random`.
        pruner: the method of Optuna that ends trials early by their scores during training: `median`, `hyperband` (Li
            et al. 2018) or `none`. With several objectives no trial ends early.
        fidelity: with `rows`, a trial trains on a ninth, then a third, then all of the training rows, and ends early if
            its score on fewer rows is low.
    """

    space: Annotated[dict[str, RangeRecipe | list[Any]], OnResume.IRRELEVANT] = Field(default_factory=dict)
    objective: Annotated[str | list[str], OnResume.IRRELEVANT] = "mtl_score"
    sampler: Annotated[Literal["tpe", "random"], OnResume.IRRELEVANT] = "tpe"
    pruner: Annotated[Literal["median", "hyperband", "none"], OnResume.IRRELEVANT] = "median"
    fidelity: Annotated[Literal["rows"] | None, OnResume.IRRELEVANT] = None

    @field_validator("space")
    @classmethod
    def _lists_have_several_values(
        cls, space: dict[str, RangeRecipe | list[Any]]
    ) -> dict[str, RangeRecipe | list[Any]]:
        for key, values in space.items():
            if isinstance(values, list) and len({json.dumps(each, default=str) for each in values}) < max(
                2, len(values)
            ):
                raise ValueError(f"{key}: should have at least two values, each once. Found {values!r:.80}")
        return space

    @property
    def objectives(self) -> list[str]:
        """The objectives, of which the first one decides between equal trials."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)


def check_objectives(objectives: Sequence[str], tasks: Collection[str]) -> None:
    """Check that the objectives of a search exist.

    Args:
        objectives: the names.
        tasks: the names of the recipe's tasks.

    Raises:
        ValueError: if there is no objective, an objective does not exist or is given twice, or all of them are costs.
    """
    valid = [*QUALITIES, *COSTS, *tasks]
    for name in objectives:
        if name not in valid:
            raise ValueError(f"no such objective {name!r:.80}. {did_you_mean(name, valid)}")
    if len(set(objectives)) < len(objectives):
        raise ValueError(f"each objective should be named once. Found {list(objectives)}")
    if not set(objectives) - (set(COSTS) - set(tasks)):
        raise ValueError("name at least one score, such as `mtl_score` or a task: the cheapest training learns nothing")
