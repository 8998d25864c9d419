from __future__ import annotations

import pytest
import yaml
from plain_recipes import PLAIN, changed, write

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.recipe.schema import Recipe


def test_saved_recipe_has_the_keys_of_a_recipe():
    assert SavedRecipe.model_fields.keys() == Recipe.model_fields.keys()


def test_variables_of_a_saved_recipe_are_never_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_SECRET", "qq77qq77")
    data = changed("max_length", "${MTL_SECRET}") | {
        "encoder": "${MTL_SECRET}",
        "training": {"learning_rate": "${MTL_UNSET}"},
        "loss": {"weights": {"pos": "${MTL_SECRET}"}},
        "mixture": {"temperature": "${MTL_SECRET}"},
    }
    read = SavedRecipe.read(write(tmp_path, data))
    assert yaml.safe_load(read.to_yaml()) == data
    assert yaml.safe_load(read.without_local_paths().to_yaml()) == data


def test_saved_recipe_keeps_keys_that_are_not_checked(tmp_path):
    data = changed("datasets.ewt.sep", ";")
    assert yaml.safe_load(SavedRecipe.read(write(tmp_path, data)).to_yaml()) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed("card", {"license": "${HF_TOKEN}"}), r"card\.license: \$\{HF_TOKEN\} is a variable, and the card is"),
        (changed("encodr", "x"), r"encodr: unknown key\. Did you mean 'encoder'"),
        (changed("encoder", 3), r"encoder: .*text\. Found 3"),
        (changed("datasets", [1]), r"datasets: .*section"),
        (changed("datasets.ewt", [1]), r"datasets\.ewt: should be a section with the keys path, "),
        (changed("datasets.ewt.labels", "x"), r"datasets\.ewt\.labels: .*section"),
        (changed("datasets.ewt.path", ["x"]), r"datasets\.ewt\.path: .*text"),
        (changed("training", 3), r"training: .*section"),
        (changed("freeze", 3), r"freeze: .*list"),
        (changed("training.hub_token", "hf_qq77"), r"training\.hub_token: a recipe must not contain a token"),
        ({1: 2}, r".*"),
        ([PLAIN], r".*should be a mapping of keys. Found list"),
    ],
)
def test_damaged_or_hostile_saved_recipe_is_refused_in_one_line(tmp_path, data, message):
    path = write(tmp_path, data)
    with pytest.raises(RecipeError, match=message) as caught:
        SavedRecipe.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "qq77" not in str(caught.value)
