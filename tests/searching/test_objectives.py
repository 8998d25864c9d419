from __future__ import annotations

import math

import pytest

from mtl_nlp import Recipe, TextClassification, TokenClassification
from mtl_nlp.errors import RecipeError, RunError
from mtl_nlp.run.prepare import Run
from mtl_nlp.searching.objectives import Objectives, costs_of, objectives_of

TASKS = {
    "pos": TokenClassification(name="pos", labels=["a", "b"]),
    "genre": TextClassification(name="genre", labels=["x", "y"]),
}
SCORES = {"pos": {"accuracy": 0.8}, "genre": {"accuracy": 0.6, "macro_f1": 0.1}}


def test_values_are_those_of_the_names_in_their_order():
    objectives = Objectives(["genre", "mtl_score", "delta_m", "passes"], TASKS, {"pos": 0.8, "genre": 0.5})
    costs = {"seconds": 5.0, "passes": 2.0}
    assert objectives.values(SCORES, 0.7, costs) == pytest.approx([0.6, 0.7, 10.0, 2.0])
    assert objectives.directions == ["maximize", "maximize", "maximize", "minimize"]
    assert not objectives.is_single
    assert objectives.is_better(0.7, 0.6)


def test_a_task_with_the_name_of_a_cost_is_a_task():
    tasks = {"seconds": TASKS["pos"]}
    objectives = Objectives(["seconds"], tasks)
    assert objectives.directions == ["maximize"]
    assert objectives.values({"seconds": {"accuracy": 0.5}}, 0.5, {"seconds": 9.0}) == [0.5]


def test_a_value_that_is_not_a_number_fails_the_trial():
    with pytest.raises(RunError, match="mtl_score is not defined on the validation splits"):
        Objectives(["mtl_score"], TASKS).values(SCORES, math.nan, {})


def test_every_task_needs_validation_rows_and_a_reference_above_zero(run: Run):
    assert objectives_of(run.recipe, run).is_single
    with pytest.raises(RecipeError, match="the task 'pos' alone scores 0"):
        objectives_of(run.recipe, run, {"pos": 0.0})
    del run.splits["validation"]
    with pytest.raises(RecipeError, match="have no labels for 'pos'"):
        objectives_of(run.recipe, run)


def test_passes_are_one_per_adapter_and_one_for_the_other_tasks(quick_recipe):
    for tasks, passes in (("all", 3.0), (["pos"], 2.0)):
        recipe = Recipe.from_dict(quick_recipe | {"adapters": {"tasks": tasks}})
        assert costs_of(recipe, {"seconds": 2}) == {"seconds": 2.0, "passes": passes}
    assert costs_of(Recipe.from_dict(quick_recipe), {})["passes"] == 1.0
