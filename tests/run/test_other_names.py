from __future__ import annotations

import dataclasses
import re

import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.other_names import OTHER_NAMES
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def test_no_name_is_an_argument_and_all_named_keys_are():
    valid = {field.name for field in dataclasses.fields(MultitaskTrainingArguments)}
    valid |= set(Recipe.model_fields) | {"mixture.length_window", "TENSORBOARD_LOGGING_DIR", "HF_TOKEN"}
    assert not OTHER_NAMES.keys() & valid - {"max_length"}
    named = {key for text in OTHER_NAMES.values() for key in re.findall(r"`([\w.]+)(?:: [^`]*)?`", text)}
    assert named <= valid


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("group_by_length", r"The mixture groups rows by length .* `mixture\.length_window`"),
        ("evaluation_strategy", r"Set `eval_strategy`\."),
        ("learning_rat", r"Did you mean 'learning_rate'\?"),
        ("zzz", r"None of the \d+ valid names is similar\."),
    ],
)
def test_a_name_that_is_no_argument_has_a_sentence_of_its_own(quick_recipe, key, hint):
    quick_recipe["training"][key] = 1
    with pytest.raises(RecipeError, match=rf"^training\.{key}: no such training argument\. {hint}"):
        training_arguments(Recipe.from_dict(quick_recipe))
