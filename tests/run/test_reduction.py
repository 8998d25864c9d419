from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.reduction import Exposure, encoder_passes_of, exposures, fit_steps, reduce_recipe, rows_of

RECIPE: dict[str, Any] = {
    "encoder": "e",
    "tasks": {name: {"type": "text-classification"} for name in ("a", "b", "c")},
    "datasets": {
        "one": {"path": "json", "inputs": {"text": "text"}, "labels": {"a": "x", "b": "y"}},
        "two": {"path": "json", "inputs": {"text": "text"}, "labels": {"b": "x", "c": "y"}},
    },
    "mixture": {"temperature": 2.0, "batching": "homogeneous", "length_window": 5},
    "loss": {"weights": {"a": 0.5, "b": [2.0, 1.0]}},
    "adapters": {"r": 4, "tasks": ["a", "b"]},
    "freeze": ["encoder", "embeddings", "layers 0-3", "c"],
    "training": {"max_steps": 700, "warmup_steps": 70, "eval_steps": 0.1, "metric_for_best_model": "eval_c_accuracy"},
}


def used() -> dict[str, Exposure]:
    """Two passes over 100 rows, of which 40 have a label for a, 80 for b; half a pass over 1000 rows with b and c."""
    rows = np.arange(100)
    return {
        "one": Exposure(2.0, {"a": rows < 40, "b": rows >= 20}),
        "two": Exposure(0.5, {"b": np.ones(1000, dtype=bool), "c": np.ones(1000, dtype=bool)}),
    }


def test_each_task_alone_has_the_passes_over_its_rows():
    alone = reduce_recipe(RECIPE, ["b"], used(), alone=True)
    assert list(alone["tasks"]) == ["b"]
    assert [dataset["labels"] for dataset in alone["datasets"].values()] == [{"b": "y"}, {"b": "x"}]
    # 2 passes over 80 rows and half a pass over 1000 rows
    assert alone["training"]["num_train_epochs"] == pytest.approx(660 / 1080)
    assert alone["mixture"]["probabilities"] == pytest.approx({"one": 160 / 660, "two": 500 / 660})
    assert alone["mixture"]["batching"] == "homogeneous"
    maps = {"a": {"x": "y"}, "b": {"p": "q"}}
    datasets = {**RECIPE["datasets"], "one": {**RECIPE["datasets"]["one"], "label_map": maps}}
    mapped = reduce_recipe({**RECIPE, "datasets": datasets}, ["b"], used(), alone=True)
    assert mapped["datasets"]["one"]["label_map"] == {"b": maps["b"]}
    assert "temperature" not in alone["mixture"]


@pytest.mark.parametrize(("tasks", "alone"), [(["b"], True), (["a"], False), (["a", "b"], False)])
def test_gradient_methods_and_conflict_need_several_tasks(tasks, alone):
    loss = {"gradients": "gradvac", "gradients_kwargs": {"beta": 0.1}, "every": 2}
    recipe = {**RECIPE, "loss": {**RECIPE["loss"], **loss}, "analysis": {"conflict_every": 10}}
    reduced = reduce_recipe(recipe, tasks, used(), alone=alone)
    if len(tasks) > 1:
        assert reduced["loss"].items() >= loss.items()
        assert reduced["analysis"] == {"conflict_every": 10}
    else:
        assert not reduced.get("loss", {}).keys() & loss.keys()
        assert "analysis" not in reduced


def test_task_alone_has_no_teacher_and_a_group_has_those_of_its_tasks():
    recipe = {**RECIPE, "distill": {"teachers": {"a": "x", "c": "y"}}}
    assert "distill" not in reduce_recipe(recipe, ["a"], used(), alone=True)
    assert reduce_recipe(recipe, ["a", "b"], used(), alone=False)["distill"] == {"teachers": {"a": "x"}}
    assert "distill" not in reduce_recipe(recipe, ["b"], used(), alone=False)
    compared = {**RECIPE, "distill": {"teachers": "compared"}}
    assert "distill" not in reduce_recipe(compared, ["a"], used(), alone=True)
    assert reduce_recipe(compared, ["a", "b"], used(), alone=False)["distill"] == {"teachers": "compared"}


def test_one_dataset_needs_no_probabilities():
    alone = reduce_recipe(RECIPE, ["a"], used(), alone=True)
    assert alone["training"]["num_train_epochs"] == 2.0
    assert "probabilities" not in alone["mixture"]


def test_checkpoints_stay_at_evaluations():
    training = {"max_steps": 700, "eval_steps": 100, "save_steps": 200, "logging_steps": 10}
    fit_steps(training, 1 / 3)
    assert training == {"max_steps": 233, "eval_steps": 33, "save_steps": 66, "logging_steps": 3}


def test_the_best_model_is_chosen_by_the_task_that_the_metric_names():
    named = {**RECIPE, "tasks": {**RECIPE["tasks"], "a_long": {"type": "text-classification"}}}
    for metric, chosen in (("a_long_accuracy", "mtl_score"), ("eval_a_accuracy", "eval_a_accuracy"), ("loss", "loss")):
        recipe = {**named, "training": {"metric_for_best_model": metric}}
        assert reduce_recipe(recipe, ["a"], used(), alone=True)["training"]["metric_for_best_model"] == chosen


def test_steps_keep_their_share_of_the_training_and_shares_stay():
    training = reduce_recipe(RECIPE, ["c"], used(), alone=True)["training"]
    assert "max_steps" not in training
    assert training["warmup_steps"] == 50  # 500 of 700 rows
    assert training["eval_steps"] == 0.1


def test_the_best_model_is_chosen_by_a_task_that_is_kept():
    assert reduce_recipe(RECIPE, ["c"], used(), alone=True)["training"]["metric_for_best_model"] == "eval_c_accuracy"
    other = reduce_recipe(RECIPE, ["a"], used(), alone=True)["training"]
    assert (other["metric_for_best_model"], other["greater_is_better"]) == ("mtl_score", True)


def test_a_task_alone_shares_nothing_and_a_group_keeps_its_part():
    alone = reduce_recipe(RECIPE, ["a"], used(), alone=True)
    assert not alone.keys() & {"adapters", "freeze", "loss"}
    group = reduce_recipe(RECIPE, ["b", "c"], used(), alone=False)
    assert group["adapters"] == {"r": 4, "tasks": ["b"]}
    assert group["freeze"] == ["encoder", "embeddings", "layers 0-3", "c"]
    assert group["loss"] == {"weights": {"b": [2.0, 1.0]}}
    chosen = {**RECIPE, "loss": {"weighting": "gradnorm", "weighting_kwargs": {"alpha": 1.0}, "scale": "per_task"}}
    pair = reduce_recipe(chosen, ["b", "c"], used(), alone=False)
    assert pair["loss"] == {**chosen["loss"], "weights": {}}
    one = reduce_recipe(chosen, ["c"], used(), alone=False)
    assert one["loss"] == {"scale": "per_task", "weights": {}}
    without = reduce_recipe(RECIPE, ["c"], used(), alone=False)
    assert "adapters" not in without
    assert without["freeze"] == ["c"]


def test_groups_with_several_datasets_keep_the_headroom():
    recipe = {**RECIPE, "mixture": {**RECIPE["mixture"], "headroom": True}}
    assert reduce_recipe(recipe, ["b", "c"], used(), alone=False)["mixture"]["headroom"] is True
    for tasks, alone in ((["a"], False), (["b"], False), (["b", "c"], True)):
        assert "headroom" not in reduce_recipe(recipe, tasks, used(), alone=alone)["mixture"]


def test_a_task_alone_keeps_what_concerns_one_task():
    of_one = {"freeze_when_overfit": {"patience": 2}, "on_nonfinite": "skip"}
    recipe = {**RECIPE, "loss": {**RECIPE["loss"], **of_one}}
    assert reduce_recipe(recipe, ["a"], used(), alone=True)["loss"] == of_one


def test_the_section_baselines_sets_the_training_of_each_task_alone():
    baselines = {"training": {"learning_rate": 1e-4}, "tasks": {"a": {"training": {"learning_rate": 3e-4}}}}
    recipe = {**RECIPE, "baselines": baselines}
    assert reduce_recipe(recipe, ["a"], used(), alone=True)["training"]["learning_rate"] == 3e-4
    assert reduce_recipe(recipe, ["b"], used(), alone=True)["training"]["learning_rate"] == 1e-4
    assert "learning_rate" not in reduce_recipe(recipe, ["b"], used(), alone=False)["training"]


def test_the_number_of_rows_can_be_given():
    alone = reduce_recipe(RECIPE, ["b"], used(), alone=True, rows=330.0)
    assert alone["training"]["num_train_epochs"] == pytest.approx(330 / 1080)
    assert alone["mixture"]["probabilities"] == pytest.approx({"one": 160 / 660, "two": 500 / 660})


def test_rows_that_are_set_aside_stay_the_same():
    """The task that decides the stratification may not be kept."""
    datasets = {**RECIPE["datasets"], "one": {**RECIPE["datasets"]["one"], "test_size": 0.1}}
    recipe = {**RECIPE, "datasets": datasets, "tasks": {**RECIPE["tasks"], "a": {"type": "regression"}}}
    columns = {
        first: reduce_recipe(
            {**recipe, "tasks": {**recipe["tasks"], "a": {"type": first}}}, [kept], used(), alone=True
        )["datasets"]["one"]["stratify_by_column"]
        for first, kept in (("regression", "a"), ("text-classification", "b"))
    }
    assert columns == {"regression": "y", "text-classification": "x"}
    assert "stratify_by_column" not in reduce_recipe(recipe, ["b"], used(), alone=True)["datasets"]["two"]


def test_the_recipe_is_not_changed():
    before = copy.deepcopy(RECIPE)
    reduce_recipe(RECIPE, ["b"], used(), alone=True)
    assert before == RECIPE


def test_rows_and_encoder_passes_are_counted():
    assert rows_of(["a"], used()) == 80
    assert rows_of(["a", "b"], used()) == 200 + 500
    assert encoder_passes_of(used(), []) == 200 + 500
    assert encoder_passes_of(used(), ["a", "b"]) == 80 + (160 + 500) + 500


def test_the_exposure_is_that_of_the_mixture(quick_recipe):
    recipe = Recipe.from_dict({**quick_recipe, "training": {**quick_recipe["training"], "num_train_epochs": 3}})
    recipe.training.pop("max_steps", None)
    run = prepare(recipe)
    found = exposures(run, training_arguments(recipe))
    assert found["sample"].passes == pytest.approx(3.0, rel=0.05)
    assert found["sample"].count(["pos"]) == run.train["sample"].num_windows
