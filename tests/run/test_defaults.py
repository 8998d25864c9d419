from __future__ import annotations

import pytest

from mtl_nlp import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.defaults import describe_defaults
from mtl_nlp.run.prepare import prepare_run


def described(recipe: dict) -> list[str]:
    loaded = Recipe.from_dict(recipe)
    return describe_defaults(prepare_run(loaded), training_arguments(loaded))


def with_tasks(recipe: dict, *names: str) -> dict:
    sample = recipe["datasets"]["sample"]
    labels = {name: sample["labels"][name] for name in names}
    tasks = {name: recipe["tasks"][name] for name in names}
    return recipe | {"tasks": tasks, "datasets": {"sample": sample | {"labels": labels}}}


def test_plain_recipe_has_a_line_for_each_setting_that_the_tasks_decide(quick_recipe: dict):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification"}
    quick_recipe["training"]["learning_rate"] = 2e-4
    pooling, rate, weight = described(quick_recipe)
    assert pooling.startswith("tasks.topic.pooling is mean")
    assert rate.startswith("training.head_learning_rate is 0.001, 5 times learning_rate")
    assert weight.startswith("loss.weights.topic is 0.3")


def test_given_settings_have_no_line(quick_recipe: dict):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification", "pooling": "mean"}
    quick_recipe["training"]["head_learning_rate"] = 1e-3
    quick_recipe["loss"] = {"weights": {"topic": 1.0}}
    assert described(quick_recipe) == []


@pytest.mark.parametrize("name", ["pos", "topic"])
def test_one_task_trains_like_the_stock_class(quick_recipe: dict, name: str):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification"}
    recipe = with_tasks(quick_recipe, name)
    assert described(recipe) == []
    assert vars(prepare_run(Recipe.from_dict(recipe)).tasks[name]).get("pooling") != "mean"
