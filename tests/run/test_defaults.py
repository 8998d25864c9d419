from __future__ import annotations

import pytest

from mtl_nlp import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.defaults import Default, chosen_defaults
from mtl_nlp.run.prepare import prepare


def chosen(recipe: dict) -> list[Default]:
    loaded = Recipe.from_dict(recipe)
    return chosen_defaults(prepare(loaded), training_arguments(loaded))


def with_tasks(recipe: dict, *names: str) -> dict:
    sample = recipe["datasets"]["sample"]
    labels = {name: sample["labels"][name] for name in names}
    tasks = {name: recipe["tasks"][name] for name in names}
    return recipe | {"tasks": tasks, "datasets": {"sample": sample | {"labels": labels}}}


def test_plain_recipe_gets_each_setting_that_the_tasks_decide(quick_recipe: dict):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification"}
    quick_recipe["training"]["learning_rate"] = 2e-4
    found = chosen(quick_recipe)
    assert [(default.key, default.value) for default in found] == [
        ("tasks.topic.pooling", "mean"),
        ("training.head_learning_rate", "0.004, 20 times learning_rate"),
        ("loss.weights.ner", "3"),
        ("loss.weights.topic", "0.6"),
    ]
    assert found[0].describe() == (
        "tasks.topic.pooling is mean. Other tasks label words, and beside such tasks the mean of all sub-words serves "
        "better than the first."
    )


def test_given_settings_have_no_line(quick_recipe: dict):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification", "pooling": "mean"}
    quick_recipe["training"]["head_learning_rate"] = 1e-3
    quick_recipe["loss"] = {"weights": {"ner": 1.0, "topic": 1.0}}
    assert chosen(quick_recipe) == []


@pytest.mark.parametrize("name", ["pos", "topic"])
def test_one_task_trains_like_the_stock_class(quick_recipe: dict, name: str):
    quick_recipe["tasks"]["topic"] = {"type": "text-classification"}
    recipe = with_tasks(quick_recipe, name)
    assert chosen(recipe) == []
    assert vars(prepare(Recipe.from_dict(recipe)).tasks[name]).get("pooling") != "mean"
