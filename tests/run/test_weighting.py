from __future__ import annotations

import pytest

from mtl_nlp.balancing.gradnorm import GradNorm
from mtl_nlp.balancing.random_weights import RandomWeights
from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.weighting import check_weighting, describe_weighting, loss_weighting

REPLACED = (
    "\nnote: {} chooses the weights of all tasks, so the default of loss.weights does not apply: "
    "3 of ner, 0.6 of topic."
)


def recipe_of(quick_recipe: dict, loss: dict, **more) -> Recipe:
    return Recipe.from_dict(quick_recipe | {"loss": loss} | more)


def built(recipe: Recipe):
    return loss_weighting(recipe, {name: recipe.task(name) for name in recipe.tasks})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            {"weighting": "gradnorm", "weighting_kwargs": {"alhpa": 1}},
            r"^loss\.weighting_kwargs\.alhpa: gradnorm has no such",
        ),
        (
            {"weighting": "gradnorm", "weighting_kwargs": {"alpha": -1}},
            r"^loss\.weighting_kwargs: `alpha` should be finite",
        ),
        ({"weighting_kwargs": {"alpha": 1}}, r"^loss\.weighting_kwargs\.alpha: static has no such parameter"),
    ],
)
def test_bad_weighting_is_named_before_the_data_are_loaded(quick_recipe, loss, message):
    recipe = recipe_of(quick_recipe, loss)
    with pytest.raises(RecipeError, match=message):
        check_weighting(recipe)
    with pytest.raises(RecipeError, match=message):
        training_arguments(recipe)


def test_one_task_is_refused(quick_recipe):
    (first, *_) = quick_recipe["tasks"]
    datasets = {
        name: dataset | {"labels": {first: dataset["labels"][first]}}
        for name, dataset in quick_recipe["datasets"].items()
        if first in dataset["labels"]
    }
    recipe = recipe_of(
        quick_recipe, {"weighting": "famo"}, tasks={first: quick_recipe["tasks"][first]}, datasets=datasets
    )
    with pytest.raises(RecipeError, match=rf"^loss\.weighting: famo compares tasks, and there is only '{first}'"):
        check_weighting(recipe)


def single_label_recipe(weighting: str, batching: str) -> Recipe:
    data = {"path": "json", "inputs": {"text": "text"}}
    return Recipe.from_dict(
        {
            "encoder": "e", "output_dir": "o", "tasks": {name: {"type": "text-classification"} for name in "ab"},
            "datasets": {"one": {**data, "labels": {"a": "x"}}, "two": {**data, "labels": {"b": "x"}}},
            "mixture": {"batching": batching}, "loss": {"weighting": weighting},
        }
    )  # fmt: skip


@pytest.mark.parametrize("weighting", ["gradnorm", "famo", "stch"])
def test_methods_that_compare_the_tasks_of_a_step_need_steps_with_several_tasks(weighting):
    with pytest.raises(RecipeError, match=rf"^loss\.weighting: {weighting} compares the tasks of a step"):
        check_weighting(single_label_recipe(weighting, "homogeneous"))
    check_weighting(single_label_recipe(weighting, "mixed"))


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "random", "equal-start"])
def test_other_methods_train_on_homogeneous_batches(weighting):
    check_weighting(single_label_recipe(weighting, "homogeneous"))


def test_static_weights_are_an_argument_and_other_weightings_are_built(quick_recipe):
    assert built(recipe_of(quick_recipe, {"weights": {"pos": 0.5}})) is None
    weighting = built(recipe_of(quick_recipe, {"weighting": "gradnorm", "weighting_kwargs": {"alpha": "2"}}))
    assert isinstance(weighting, GradNorm)
    assert weighting.alpha == 2.0
    assert weighting.tasks == list(quick_recipe["tasks"])


def test_random_weights_have_the_seed_of_the_training_unless_given(quick_recipe):
    quick_recipe["training"]["seed"] = 7
    found = [
        built(recipe_of(quick_recipe, {"weighting": "random", "weighting_kwargs": kwargs}))
        for kwargs in ({}, {"seed": 3})
    ]
    assert all(isinstance(weighting, RandomWeights) for weighting in found)
    assert [weighting.seed for weighting in found] == [7, 3]


@pytest.mark.parametrize(
    ("loss", "accumulated", "line"),
    [
        ({}, 1, ""),
        (
            {"weights": {"topic": [1, 0.2], "pos": 0.5}, "on_nonfinite": "skip"}, 1,
            "loss weights: topic 1 to 0.2, linearly over the training; pos 0.5.\n"
            "on_nonfinite: the share of a task whose loss is infinite or NaN is left out of the step; the training "
            "ends after ten such steps in a row.",
        ),
        (
            {"weighting": "dwa"}, 1,
            "loss weighting: dwa (temperature 2.0); cost: none.\n"
            "note: dwa keeps all weights at 1 in the first two epochs, and the training has 1. Set "
            "training.num_train_epochs to 3 or more, or choose a different weighting.",
        ),
        (
            {"weighting": "uncertainty"}, 1,
            "loss weighting: uncertainty (learning_rate 0.01); cost: one parameter per task.",
        ),
        ({"weighting": "log-classes"}, 2, "loss weighting: log-classes; cost: none."),
        (
            {"weighting": "gradnorm", "weighting_kwargs": {"alpha": 1}}, 1,
            "loss weighting: gradnorm (alpha 1, learning_rate 0.025); cost: a backward pass through the encoder's last "
            "layer per task and micro-batch.",
        ),
        (
            {"weighting": "famo"}, 1,
            "loss weighting: famo (learning_rate 0.025, weight_decay 0.001); cost: a second forward pass without "
            "gradients after each step.",
        ),
        (
            {"weighting": "stch"}, 2,
            "loss weighting: stch (mu 0.5); cost: a forward pass without gradients before each step, since a step has "
            "several micro-batches.",
        ),
        (
            {"weighting": "equal-start"}, 2,
            "loss weighting: equal-start (steps 10); cost: a forward pass without gradients before each of the first "
            "steps, since a step has several micro-batches.",
        ),
    ],
)  # fmt: skip
def test_plan_states_the_parameters_and_costs(quick_recipe, loss, accumulated, line):
    quick_recipe["training"] |= {"gradient_accumulation_steps": accumulated, "max_steps": -1, "num_train_epochs": 1}
    recipe = recipe_of(quick_recipe, loss)
    method = loss.get("weighting")
    expected = line if method is None else line + REPLACED.format(method)
    assert describe_weighting(recipe, training_arguments(recipe)) == expected


def test_plan_states_the_seed_of_the_training(quick_recipe):
    quick_recipe["training"]["seed"] = 7
    recipe = recipe_of(quick_recipe, {"weighting": "random"})
    assert describe_weighting(recipe, training_arguments(recipe)) == (
        "loss weighting: random (seed 7); cost: none." + REPLACED.format("random")
    )


@pytest.mark.parametrize("seed", [-1, "x", True, None])
def test_a_bad_seed_of_the_training_is_named_as_such(quick_recipe, seed):
    quick_recipe["training"]["seed"] = seed
    with pytest.raises(RecipeError, match=r"^training\.seed: should be .*\. Found "):
        training_arguments(recipe_of(quick_recipe, {"weighting": "random"}))


def test_plan_states_the_freezing(quick_recipe):
    quick_recipe["training"]["eval_strategy"] = "epoch"
    recipe = recipe_of(quick_recipe, {"freeze_when_overfit": {"patience": 2}})
    assert describe_weighting(recipe, training_arguments(recipe)) == (
        "freezing: a task has the weight 0 from the end of 2 evaluations in a row without a new best validation score "
        "on."
    )


@pytest.mark.parametrize(
    "training",
    [
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
        {"torch_compile": True},
    ],
)
def test_gradnorm_needs_a_graph_that_is_kept_in_every_command(quick_recipe, training):
    quick_recipe["training"] |= training
    with pytest.raises(RecipeError, match=r"^loss\.weighting: `(torch_compile|activation_checkpointing_kwargs)"):
        training_arguments(recipe_of(quick_recipe, {"weighting": "gradnorm"}))
    training_arguments(recipe_of(quick_recipe, {"weighting": "uncertainty"}))
