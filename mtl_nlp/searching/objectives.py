"""The objectives of a search: the values of a trial that the search improves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mtl_nlp.errors import RecipeError, RunError
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.searching import COSTS
from mtl_nlp.run.prepare import Run

Direction = Literal["maximize", "minimize"]

Scores = Mapping[str, Mapping[str, float]]
"""Task -> its scores by name."""


@dataclass(frozen=True)
class Objectives:
    """The objectives of a search.

    Attributes:
        names: the names, of which the first one decides between equal trials.
        tasks: the tasks by name.
        reference: the primary score of each task's best model alone, for `delta_m`.
    """

    names: Sequence[str]
    tasks: Mapping[str, Task]
    reference: Mapping[str, float] = field(default_factory=dict)

    @property
    def directions(self) -> list[Direction]:
        """For each objective, `maximize` or `minimize`."""
        return ["minimize" if self._is_cost(name) else "maximize" for name in self.names]

    @property
    def is_single(self) -> bool:
        """Whether there is one objective, so that there is one best trial, and trials can end early."""
        return len(self.names) == 1

    def values(self, scores: Scores, mtl_score: float, costs: Mapping[str, float]) -> list[float]:
        """Return the value of each objective.

        Args:
            scores: the scores of each task on the validation splits.
            mtl_score: the mean of the primary scores, as the recipe weights them.
            costs: the value of each cost.

        Raises:
            RunError: if a value is not a finite number.
        """
        found = [self._value(name, scores, mtl_score, costs) for name in self.names]
        for name, value in zip(self.names, found, strict=True):
            if value is None or not math.isfinite(value):
                raise RunError(f"{name} is not defined on the validation splits.")
        return found

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a value of the first objective is better than a different value."""
        return value < other if self.directions[0] == "minimize" else value > other

    def _is_cost(self, name: str) -> bool:
        return name in COSTS and name not in self.tasks

    def _value(self, name: str, scores: Scores, mtl_score: float, costs: Mapping[str, float]) -> float:
        if name in self.tasks:
            return scores[name][self.tasks[name].kind.primary_score]
        if self._is_cost(name):
            return costs[name]
        return mtl_score if name == "mtl_score" else self._delta_m(scores)

    def _delta_m(self, scores: Scores) -> float:
        """Return Δm = 100 / T · Σ_t (M_t - B_t) / B_t in percent (Vandenhende et al., 2021).

        A higher primary score is always better.
        """
        shares = [
            (scores[name][self.tasks[name].kind.primary_score] - reference) / reference
            for name, reference in self.reference.items()
        ]
        return 100 * sum(shares) / len(shares)


def objectives_of(recipe: Recipe, run: Run, reference: Mapping[str, float] | None = None) -> Objectives:
    """Return the objectives of a recipe.

    Args:
        recipe: the recipe.
        run: the recipe with its data.
        reference: the primary score of each task's best model alone, for `delta_m`.

    Raises:
        RecipeError: if there are no validation rows for a task, or a reference is not above 0.
    """
    validation = run.splits.get("validation", {})
    tasks = {name: run.tasks[name] for name in recipe.tasks}
    for name in tasks:
        if not any(name in encoded.feeds for encoded in validation.values()):
            raise RecipeError(
                f"search: trials are compared on the validation splits, which have no labels for {name!r}. Add a "
                f"validation split, or set `validation_size` in a dataset."
            )
    for name, value in (reference or {}).items():
        if value <= 0:
            raise RecipeError(
                f"search.objective: delta_m is not defined, since the task {name!r} alone scores {value:.3g}. Choose "
                f"mtl_score."
            )
    return Objectives(recipe.search.objectives, tasks, dict(reference or {}))


def costs_of(recipe: Recipe, training: Mapping[str, Any]) -> dict[str, float]:
    """Return the costs of a trained recipe.

    Args:
        recipe: the recipe.
        training: the description of the training, see `MultitaskTrainer.describe_training`.

    Returns:
        `seconds` of training, and `passes`: the encoder passes that answer all tasks for a text, one for each task with
        an adapter and one for all others.
    """
    adapted = set(recipe.adapted_tasks)
    passes = len(adapted) + bool(set(recipe.tasks) - adapted)
    return {"seconds": float(training.get("seconds", 0.0)), "passes": float(passes)}
