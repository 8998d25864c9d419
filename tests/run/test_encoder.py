from __future__ import annotations

import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.encoder import load_encoder_parts


def test_a_new_configuration_has_the_recipes_window_and_no_tasks(quick_recipe):
    tokenizer, config = load_encoder_parts(Recipe.from_dict({**quick_recipe, "max_length": 20, "stride": 3}))
    assert tokenizer.is_fast
    assert (config.max_length, config.stride, config.tasks, config.name_or_path) == (20, 3, [], "")
    assert config.text_config.model_type == "bert"


def test_window_defaults_to_the_limit_of_the_encoder(quick_recipe):
    _, config = load_encoder_parts(Recipe.from_dict(quick_recipe))
    assert (config.max_length, config.stride) == (48, None)


def test_trained_model_keeps_its_tasks_and_window(saved, quick_recipe):
    _, config = load_encoder_parts(Recipe.from_dict({**quick_recipe, "encoder": str(saved)}))
    assert [task["name"] for task in config.tasks] == ["pos", "ner", "topic"]
    assert (config.max_length, config.name_or_path) == (48, str(saved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "/nowhere/at/all"}, r"^encoder: /nowhere/at/all cannot be loaded"),
        ({"max_length": 49}, r"^max_length: the encoder reads at most 48 sub-words at once\. Found 49"),
        ({"max_length": 20, "stride": 18}, r"^stride: should be below 18, .* sub-words .* Found 18"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(quick_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_encoder_parts(Recipe.from_dict({**quick_recipe, **changes}))
