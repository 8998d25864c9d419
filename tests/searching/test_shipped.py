from __future__ import annotations

import pytest

from mtl_nlp import Recipe
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.searching.shipped import default_space, shipped_value


def test_the_default_space_lies_around_the_settings_of_the_recipe(run: Run):
    space = default_space(run)
    assert [*space] == [
        "training.learning_rate",
        "training.head_learning_rate",
        "training.max_steps",
        "loss.weights.pos",
        "loss.weights.ner",
        "loss.weights.topic",
        "tasks.topic.pooling",
        "adapters",
    ]
    assert space["training.learning_rate"].model_dump() == {"low": 1.25e-5, "high": 2e-4, "log": True, "step": None}
    assert space["training.head_learning_rate"].high == pytest.approx(4 * 20 * 5e-5)
    assert (space["training.max_steps"].low, space["training.max_steps"].high) == (2, 8)
    assert space["tasks.topic.pooling"] == ["cls", "mean"]
    assert space["adapters"][0] is None
    assert [each["tasks"] for each in space["adapters"][2:]] == [["pos"], ["ner"], ["topic"]]


def test_only_the_keys_that_the_recipe_has_room_for_are_in_the_default_space(quick_recipe):
    data = quick_recipe | {"tasks": {"pos": quick_recipe["tasks"]["pos"]}}
    data["datasets"]["sample"]["labels"] = {"pos": "upos"}
    data["training"]["learning_rate"] = 1e-4
    alone = prepare(Recipe.from_dict(data))
    space = default_space(alone)
    assert [*space] == ["training.learning_rate", "training.head_learning_rate", "training.max_steps"]
    # A task alone has one rate by default.
    assert (space["training.head_learning_rate"].low, space["training.head_learning_rate"].high) == (1e-4, 4e-3)


def test_the_value_of_a_default_counts_as_shipped(run: Run):
    expected = {
        "training.learning_rate": 5e-5,
        "training.head_learning_rate": 1e-3,
        "loss.weights.topic": 0.6,
        "loss.weights.pos": 1.0,
        "loss.weights.ner": 3.0,
        "tasks.topic.pooling": "cls",
        "mixture.temperature": 1.0,
        "training.max_steps": 4,
    }
    assert {key: shipped_value(run, key)[1] for key in expected} == pytest.approx(expected)
    assert shipped_value(run, "training.adapter_learning_rate")[0] is False
    assert shipped_value(run, "freeze")[1] == []
