from __future__ import annotations

import optuna
import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.searching import RangeRecipe
from mtl_nlp.run.prepare import Run
from mtl_nlp.searching.shipped import default_space
from mtl_nlp.searching.space import check_space, label_of, recipe_with, with_values


def test_the_default_space_is_accepted_and_has_the_recipe_as_shipped(run: Run):
    space = check_space(default_space(run), run, is_default=True)
    assert not space.left_out
    assert space.shipped() == {each.key: each.shipped for each in space.dimensions}
    assert space.shipped()["adapters"] is None
    assert space.shipped()["loss.weights.topic"] == 0.6
    trial = optuna.trial.FixedTrial(space.shipped())
    assert recipe_with(run.recipe, space.suggest(trial)).task("topic").pooling == "cls"


def test_values_of_a_trial_become_a_recipe(run: Run):
    space = check_space(
        {
            "training.learning_rate": RangeRecipe(low=1e-5, high=1e-3, log=True),
            "adapters": [None, {"r": 4}],
            "adapters.alpha": RangeRecipe(low=4, high=16),
            "loss.weights.ner": [0.1, 1.0],
        },
        run,
    )
    given = {"training.learning_rate": 0.000123456, "adapters": label_of({"r": 4}), "adapters.alpha": 8}
    chosen = space.suggest(optuna.trial.FixedTrial({**given, "loss.weights.ner": 0.1}))
    recipe = recipe_with(run.recipe, chosen)
    assert recipe.training["learning_rate"] == 0.0001235
    assert (recipe.adapters.r, recipe.adapters.alpha) == (4, 8)
    assert recipe.loss.weights == {"ner": 0.1}
    # A key inside a section that is null has no effect.
    without = space.suggest(optuna.trial.FixedTrial({**given, "adapters": None, "loss.weights.ner": 0.1}))
    assert recipe_with(run.recipe, without).adapters is None
    # The weight of ner as shipped is 3, which is not in the list.
    assert space.shipped().keys() == {"training.learning_rate", "adapters"}


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("trainin.learning_rate", [1, 2], "no such key. Did you mean 'training'?"),
        ("training.learning_rte", [1e-5, 1e-4], "no such training argument. Did you mean 'learning_rate'?"),
        ("loss.weight.ner", [1, 2], "loss.weight: unknown key. Did you mean 'weights'?"),
        ("loss.weights.nr", [1, 2], "loss.weights.nr: no such task. Did you mean 'ner'?"),
        ("tasks.topik.pooling", ["cls", "mean"], "tasks has no 'topik'. Did you mean 'topic'?"),
        ("tasks.topic.poolin", ["cls", "mean"], "pooling"),
        ("tasks.topic.pooling", ["cls", "max"], "search.space.tasks.topic.pooling: 'max' cannot be tried."),
        ("datasets.sampl.weight", ["a", "b"], "datasets has no 'sampl'. Did you mean 'sample'?"),
        ("encoder.size", [1, 2], "'encoder' is a value, not a section"),
        ("training.learning_rate", RangeRecipe(low=-1.0, high=1.0), "-1.0 cannot be tried. training.learning_rate:"),
        ("adapters", [None, {"r": 4, "target_modules": ["nothing"]}], "nothing"),
        ("training.seed", [1, 2], "this key is not searched: the best of several seeds is luck"),
        ("output_dir", ["a", "b"], "this key is not searched: it has no effect"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_the_first_trial(run: Run, key, values, message):
    with pytest.raises(RecipeError) as caught:
        check_space({key: values}, run)
    assert str(caught.value).startswith(f"search.space.{key}: ")
    assert message in str(caught.value)


def test_the_default_space_leaves_out_what_the_recipe_refuses(run: Run):
    space = check_space({"adapters": [None, {"r": 0}, {"r": 4}], "max_length": [4, 5]}, run, is_default=True)
    assert space.describe() == {"adapters": [None, {"r": 4}]}
    assert len(space.left_out) == 3


def test_setting_values_changes_no_other_data():
    written = {"training": {"seed": 1}, "adapters": None}
    assert with_values(written, {"adapters.r": 2, "loss.weights.a": 1}) == {
        "training": {"seed": 1},
        "adapters": {"r": 2},
        "loss": {"weights": {"a": 1}},
    }
    assert written == {"training": {"seed": 1}, "adapters": None}
