from __future__ import annotations

from typing import Any

import pytest
from plain_recipes import changed

from mtl_nlp import Recipe
from mtl_nlp.errors import RecipeError


def search_of(**section: Any) -> Any:
    return Recipe.from_dict(changed("search", section)).search


def test_a_space_has_ranges_and_lists_of_any_values():
    space = {"training.learning_rate": {"low": 5e-5, "high": 5e-4, "log": True}, "adapters": [None, {"r": 8}]}
    search = search_of(space={**space, "training.num_train_epochs": {"low": 2, "high": 8}}, objective=["pos", "passes"])
    assert not search.space["training.learning_rate"].is_whole
    assert search.space["training.num_train_epochs"].is_whole
    assert search.space["adapters"] == [None, {"r": 8}]
    assert search.objectives == ["pos", "passes"]
    assert search_of().objectives == ["mtl_score"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"space": {"a.b": {"low": 1, "hgh": 2}}}, "search.space.a.b.hgh: unknown key. Did you mean 'high'?"),
        ({"space": {"a.b": {"low": "x", "high": 2}}}, "search.space.a.b.low: should be an integer or a number. Found"),
        ({"space": {"a.b": {"low": True, "high": 2}}}, "search.space.a.b.low: should be a number. Found True"),
        ({"space": {"a.b": 3}}, "search.space.a.b: should be a section with the keys low, high, log, step. Found 3"),
        ({"space": {"a.b": {"low": 2, "high": 1}}}, "search.space.a.b: `low` should be below `high`. Found 2 and 1"),
        ({"space": {"a.b": {"low": 0, "high": 1, "log": True}}}, "`log` needs a `low` above 0. Found 0"),
        ({"space": {"a.b": {"low": 1, "high": 2, "step": 3}}}, "`step` should be at most `high` - `low`. Found 3"),
        ({"space": {"a.b": [1, 1]}}, "a.b: should have at least two values, each once"),
        ({"objective": "ps"}, "search.objective: no such objective 'ps'. Did you mean 'pos'?"),
        ({"objective": ["seconds"]}, "search.objective: name at least one score"),
        ({"objective": ["pos", "pos"]}, "each objective should be named once"),
        ({"sampler": "tpee"}, "search.sampler: should be 'tpe' or 'random'. Found 'tpee'. Did you mean 'tpe'?"),
        ({"trials": 3}, "search.trials: unknown key."),
    ],
)
def test_what_is_wrong_is_named_with_its_key(section, message):
    with pytest.raises(RecipeError) as caught:
        search_of(**section)
    assert message in str(caught.value)


def test_the_section_has_no_effect_on_the_fingerprint_of_a_run():
    plain, searched = (Recipe.from_dict(changed("search", section)) for section in ({}, {"objective": "pos"}))
    assert plain.sha256() == searched.sha256()
