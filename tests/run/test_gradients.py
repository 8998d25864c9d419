"""Gradient methods and the measurement of conflict in recipes: what is refused when, and the costs in the plan."""

from __future__ import annotations

import json

import pytest
import torch

from mtl_nlp.balancing.gradient_methods import GRADIENT_METHODS, PCGrad
from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.loss import GradientMethodName
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.gradients import gradient_method_of
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.train import train


def with_loss(data: dict, **loss: object) -> Recipe:
    return Recipe.from_dict({**data, "loss": loss})


def test_names_in_recipes_are_those_of_the_methods():
    assert set(GradientMethodName.__args__) == GRADIENT_METHODS.keys()


def test_recipe_builds_its_method(quick_recipe):
    method = gradient_method_of(with_loss(quick_recipe, gradients="pcgrad", every=3), ["pos", "ner"])
    assert isinstance(method, PCGrad)
    assert method.every == 3
    assert gradient_method_of(Recipe.from_dict(quick_recipe), ["pos", "ner"]) is None


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            {"gradients": "pcgrad", "gradients_kwargs": {"c": 1}},
            "loss.gradients_kwargs.c: pcgrad has no such parameter.",
        ),
        ({"gradients": "cagrad", "gradients_kwargs": {"c": -1}}, "loss.gradients_kwargs.c: should be a number of at"),
    ],
)
def test_parameters_are_checked_before_data_is_loaded(quick_recipe, loss, message):
    quick_recipe["datasets"]["sample"]["data_files"] = {"train": "missing.conll"}
    with pytest.raises(RecipeError) as raised:
        training_arguments(with_loss(quick_recipe, **loss))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"gradients": "pcgrd"}}, "loss.gradients: "),
        ({"loss": {"every": 2}}, "loss: `every` needs `gradients`"),
        ({"loss": {"gradients": "pcgrad", "every": 0}}, "loss.every: "),
        ({"loss": {"gradients_kwargs": {"c": 1}}}, "loss: `gradients_kwargs` needs `gradients`"),
        ({"analysis": {"conflict_every": 0}}, "analysis.conflict_every: "),
        ({"analysis": {"conflicts": 5}}, "analysis.conflicts: unknown key. Did you mean 'conflict_every'?"),
        ({"loss": {"gradients": "pcgrad"}, "tasks": 1}, "loss.gradients: a gradient method needs at least two tasks"),
        ({"analysis": {"conflict_every": 5}, "tasks": 1}, "analysis.conflict_every: a conflict needs at least two"),
    ],
)
def test_recipes_that_make_no_sense_are_refused_in_one_line(quick_recipe, changes, message):
    if changes.pop("tasks", 0):
        quick_recipe["tasks"] = {"pos": quick_recipe["tasks"]["pos"]}
        quick_recipe["datasets"]["sample"]["labels"] = {"pos": "upos"}
    with pytest.raises(RecipeError) as raised:
        Recipe.from_dict({**quick_recipe, **changes})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["encoder"]}, "The tasks share no trained parameters"),
        ({"adapters": {"train_encoder": False, "r": 2}}, "The tasks share no trained parameters"),
    ],
)
@pytest.mark.parametrize("key", ["loss.gradients", "analysis.conflict_every"])
def test_plan_refuses_a_frozen_encoder(quick_recipe, key, changes, message):
    section, name = key.split(".")
    recipe = Recipe.from_dict({**quick_recipe, **changes, section: {name: "upgrad" if name == "gradients" else 5}})
    run = prepare(recipe)
    with pytest.raises(RecipeError) as raised:
        describe_plan(run, training_arguments(recipe))
    assert str(raised.value).startswith(f"{key}: {message}")


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("loss.weighting", {"loss": {"weighting": "gradnorm"}}),
        ("analysis.conflict_every", {"analysis": {"conflict_every": 5}}),
    ],
)
def test_plan_refuses_measurements_in_a_graph_that_does_not_allow_them(quick_recipe, key, more):
    kwargs = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    recipe = Recipe.from_dict({**quick_recipe, **more, "training": {**quick_recipe["training"], **kwargs}})
    run = prepare(recipe)
    with pytest.raises(RecipeError) as raised:
        describe_plan(run, training_arguments(recipe))
    assert str(raised.value).startswith(f"{key}: `activation_checkpointing_kwargs: {{use_reentrant: true}}`")


@pytest.mark.parametrize(
    ("more", "accumulated", "key"),
    [
        ({"loss": {"gradients": "pcgrad"}}, 1, "loss.gradients"),
        ({"loss": {"gradients": "pcgrad"}, "analysis": {"conflict_every": 2}}, 2, None),
        ({"analysis": {"conflict_every": 2}}, 2, "analysis.conflict_every"),
    ],
)
def test_plan_refuses_steps_with_one_task(quick_recipe, more, accumulated, key):
    dataset = quick_recipe["datasets"]["sample"]
    datasets = {task: {**dataset, "labels": {task: dataset["labels"][task]}} for task in ("pos", "ner", "topic")}
    training = {**quick_recipe["training"], "gradient_accumulation_steps": accumulated}
    mixture = {"batching": "homogeneous"}
    recipe = Recipe.from_dict({**quick_recipe, **more, "datasets": datasets, "training": training, "mixture": mixture})
    run, arguments = prepare(recipe), training_arguments(recipe)
    if key is None:
        assert "gradients: pcgrad" in describe_plan(run, arguments)
        return
    with pytest.raises(RecipeError) as raised:
        describe_plan(run, arguments)
    assert str(raised.value).startswith(f"{key}: a homogeneous batch of these datasets has one task")


def test_plan_states_the_costs(quick_recipe):
    recipe = Recipe.from_dict(
        {**quick_recipe, "loss": {"gradients": "pcgrad", "every": 2}, "analysis": {"conflict_every": 100}}
    )
    lines = describe_plan(prepare(recipe), training_arguments(recipe)).splitlines()
    (gradients,) = (line for line in lines if line.startswith("gradients: "))
    # A forward pass and 2.6 backward passes take (1 + 2 · 2.6) / 3 of a step, in each second step.
    assert gradients.startswith(
        "gradients: pcgrad in one of 2 steps: a backward pass over each row per label, 2.27 on average, about 1.42 "
        "times the time of the plain sum; 3 gradients of "
    )
    (conflict,) = (line for line in lines if line.startswith("conflict: "))
    assert conflict == "conflict: measured in one of 100 steps, from the gradients of the gradient method."
    recipe = Recipe.from_dict({**quick_recipe, "analysis": {"conflict_every": 100}})
    lines = describe_plan(prepare(recipe), training_arguments(recipe)).splitlines()
    (conflict,) = (line for line in lines if line.startswith("conflict: "))
    assert conflict == (
        "conflict: measured in one of 100 steps, 3 backward passes over one batch, about 2.0% more training time."
    )


def test_trainer_gets_the_method_and_the_measurement_only_for_training(quick_recipe):
    recipe = Recipe.from_dict({**quick_recipe, "loss": {"gradients": "pcgrad"}, "analysis": {"conflict_every": 2}})
    run = prepare(recipe)
    trainer = build_trainer(run, build_model(run), training_arguments(recipe))
    assert isinstance(trainer.gradient_method, PCGrad)
    assert trainer.conflict.conflict.every == 2
    del run.splits["train"]  # as for `mtl-nlp evaluate`
    trainer = build_trainer(run, build_model(run), training_arguments(recipe))
    assert trainer.gradient_method is None
    assert trainer.conflict is None


@pytest.mark.slow
def test_training_writes_the_conflict_into_the_folder(quick_recipe, tmp_path):
    quick_recipe["output_dir"] = str(tmp_path / "out")
    recipe = Recipe.from_dict({**quick_recipe, "loss": {"gradients": "upgrad"}, "analysis": {"conflict_every": 2}})
    trained = train(recipe)
    content = json.loads((trained.folder / "conflict.json").read_text())
    assert [each["step"] for each in content["measurements"]] == [2, 4]
    assert content["tasks"] == ["pos", "ner", "topic"]
    assert torch.tensor(content["mean"]["cosine"]).diagonal().tolist() == [1.0] * 3
    plain = {key: value for key, value in quick_recipe.items() if key not in {"loss", "analysis"}}
    again = train(Recipe.from_dict(plain), overwrite=True)
    assert not (again.folder / "conflict.json").exists()
