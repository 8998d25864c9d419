from __future__ import annotations

import copy
import re
from glob import glob
from pathlib import Path

import pytest
import yaml

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.transfer.planning import Plan, plan_comparison
from mtl_nlp.transfer.sides import RecipeSide


def side(recipe: dict, name: str = "joint", groups: list[list[str]] | None = None) -> RecipeSide:
    return RecipeSide(name, f"{name}.yaml", Recipe.from_dict(recipe), groups or [list(recipe["tasks"])])


@pytest.fixture
def recipe(two_tasks, tmp_path) -> dict:
    return two_tasks(tmp_path)


@pytest.fixture
def plan(recipe) -> Plan:
    return plan_comparison([side(recipe)], [1, 2])


def test_every_seed_has_the_joint_run_and_one_run_per_task(plan):
    assert [job.name for job in plan.jobs()] == [
        *("joint, seed 1", "single pos, seed 1", "single topic, seed 1"),
        *("joint, seed 2", "single pos, seed 2", "single topic, seed 2"),
    ]
    assert plan.split == "test"
    assert len({job.key for job in plan.jobs()}) == 6


def test_runs_leave_checkpoints_and_push_nothing(recipe):
    recipe["training"] |= {"push_to_hub": True, "hub_model_id": "ada/x", "data_seed": 3, "save_only_model": True}
    for job in plan_comparison([side(recipe)], [7]).jobs():
        training = job.recipe["training"]
        assert not training.keys() & {"push_to_hub", "hub_model_id", "data_seed", "save_only_model"}
        assert training["seed"] == 7
        assert (training["save_strategy"], training["save_steps"], training["save_total_limit"]) == ("steps", 0.25, 1)


def test_the_single_runs_share_no_setting_of_the_joint_run(recipe):
    recipe["adapters"] = {"r": 2}
    recipe["training"]["adapter_learning_rate"] = 1e-3
    recipe["loss"] = {"weights": {"pos": 0.5}}
    joint, *alone = plan_comparison([side(recipe)], [1]).jobs()
    assert joint.recipe["adapters"]["r"] == 2
    for job in alone:
        assert not job.recipe.keys() & {"adapters", "loss"}
        assert "adapter_learning_rate" not in job.recipe["training"]


def test_differences_are_told_and_untuned_rates_warned_of(plan, recipe):
    assert any(re.fullmatch(r"single topic differs from joint: .*num_train_epochs.*", each) for each in plan.differs)
    assert len(plan.warnings) == 1
    assert "learning rates of joint.yaml, which were not chosen for it" in plan.warnings[0]
    recipe["baselines"] = {"training": {"learning_rate": 3e-4}}
    tuned = plan_comparison([side(recipe)], [1])
    assert tuned.warnings == []
    assert any("training.learning_rate not set → 0.0003" in each for each in tuned.differs)
    assert [job.recipe["training"].get("learning_rate") for job in tuned.jobs()] == [None, 3e-4, 3e-4]


def test_the_tasks_without_rates_of_their_own_are_named(recipe):
    recipe["baselines"] = {"tasks": {"pos": {"training": {"learning_rate": 3e-4}}}}
    (warning,) = plan_comparison([side(recipe)], [1]).warnings
    assert warning.startswith("topic alone was trained with the learning rates of joint.yaml")
    recipe["baselines"]["tasks"]["topic"] = {"training": {"learning_rate": 1e-4}}
    assert plan_comparison([side(recipe)], [1]).warnings == []


def test_other_training_rows_are_told(recipe):
    fewer = copy.deepcopy(recipe)
    fewer["datasets"]["words"]["max_rows"] = {"train": 20}
    plan = plan_comparison([side(recipe), side(fewer, "fewer")], [1])
    assert "fewer differs from joint: other training rows of words" in plan.differs
    assert not any("rows of texts" in each or "validation rows" in each for each in plan.differs)


def test_a_training_of_other_length_has_no_equal_budget(plan, recipe):
    assert plan.match == "passes"
    recipe["baselines"] = {"training": {"num_train_epochs": 3}}
    own = plan_comparison([side(recipe)], [1])
    assert own.match is None
    jobs = list(own.jobs())
    assert jobs[1].rows == 3 * own.first.train["words"].num_windows


def test_a_changed_recipe_changes_only_the_keys_of_its_runs(plan, recipe):
    keys = {job.name: job.key for job in plan.jobs()}
    changed = copy.deepcopy(recipe)
    changed["output_dir"] = "elsewhere"
    changed["card"] = {"license": "mit"}
    assert {job.name: job.key for job in plan_comparison([side(changed)], [1, 2]).jobs()} == keys
    changed["loss"] = {"weights": {"pos": 2.0}}
    new = {job.name: job.key for job in plan_comparison([side(changed)], [1, 2]).jobs()}
    assert {name for name in keys if keys[name] != new[name]} == {"joint, seed 1", "joint, seed 2"}


def test_a_key_covers_the_data_and_not_their_place(plan, recipe, tmp_path):
    keys = {job.name: job.key for job in plan.jobs()}
    train = tmp_path / "elsewhere.conll"
    source = recipe["datasets"]["texts"]["data_files"]["train"]
    text = "".join(Path(path).read_text() + "\n" for path in sorted(glob(source)))
    train.write_text(text)
    moved = copy.deepcopy(recipe)
    moved["datasets"]["texts"]["data_files"]["train"] = str(train)
    assert {job.name: job.key for job in plan_comparison([side(moved)], [1, 2]).jobs()} == keys
    train.write_text(text.replace("# topic = travel", "# topic = food", 1))
    new = {job.name: job.key for job in plan_comparison([side(moved)], [1, 2]).jobs()}
    assert {name for name in keys if keys[name] == new[name]} == {"single pos, seed 1", "single pos, seed 2"}


def test_groups_are_one_side_of_several_models(recipe):
    jobs = list(plan_comparison([side(recipe), side(recipe, "apart", [["topic"], ["pos"]])], [1]).jobs())
    assert [(job.side, job.tasks) for job in jobs] == [
        *(("joint", ("pos", "topic")), ("apart", ("topic",)), ("apart", ("pos",))),
        *(("single", ("pos",)), ("single", ("topic",))),
    ]
    assert {jobs[1].key, jobs[2].key} == {jobs[3].key, jobs[4].key}  # trained once


def test_a_helper_is_trained_with_a_group_and_scored_where_it_is_served(recipe):
    own = Recipe.from_dict({**recipe, "training": {**recipe["training"], "learning_rate": 3e-4}})
    joint = side(recipe)
    grouped = RecipeSide("grouped", "grouped.yaml", joint.recipe, [["pos"], ["topic"]], [None, own])
    jobs = list(plan_comparison([joint, grouped], [1]).jobs())
    assert [(job.side, job.tasks, job.served) for job in jobs[1:3]] == [
        ("grouped", ("pos",), ("pos",)),
        ("grouped", ("pos", "topic"), ("topic",)),
    ]
    assert [job.name for job in jobs[:3]] == ["joint, seed 1", "grouped pos, seed 1", "grouped topic, seed 1"]
    assert jobs[2].recipe["training"]["learning_rate"] == 3e-4
    other = copy.deepcopy(recipe)
    other["datasets"]["texts"]["max_rows"] = {"test": 3}
    shorter = grouped._replace(recipes=[None, Recipe.from_dict(other)])
    with pytest.raises(RecipeError, match=r"joint and grouped should have the same test rows for 'topic'"):
        plan_comparison([joint, shorter], [1])


def test_the_budget_can_be_that_of_the_joint_run(recipe):
    passes = list(plan_comparison([side(recipe)], [1]).jobs())
    compute = list(plan_comparison([side(recipe)], [1], "compute").jobs())
    assert sum(job.rows for job in compute[1:]) == pytest.approx(compute[0].rows)
    assert passes[0].key == compute[0].key
    recipe["adapters"] = {"r": 2}
    recipe["datasets"] = {"words": {**recipe["datasets"]["words"], "labels": {"pos": "upos", "topic": "topic"}}}
    adapted = list(plan_comparison([side(recipe)], [1], "compute").jobs())
    assert sum(job.rows for job in adapted[1:]) > 1.2 * adapted[0].rows  # one pass per adapter


def test_a_learning_curve_adds_runs_on_shares_of_the_rows(recipe):
    plan = plan_comparison([side(recipe)], [1], learning_curve=True)
    jobs = list(plan.jobs())
    assert len(jobs) == 9
    rows = [job.recipe["datasets"]["words"].get("max_rows") for job in jobs if "words" in job.recipe["datasets"]]
    train = plan.first.train["words"].num_rows
    assert rows == [
        None,
        None,
        {"train": train // 4},
        {"train": train // 4},
        {"train": train // 2},
        {"train": train // 2},
    ]
    assert len({job.key for job in jobs}) == len({job.name for job in jobs}) == 9
    assert jobs[3].name == "joint, seed 1, 25 % of the rows"
    # As many passes over fewer rows, for the joint run and for each task alone.
    assert [job.recipe["training"].get("max_steps") for job in jobs] == [4, None, None, 1, None, None, 2, None, None]


def test_recipes_with_different_tasks_are_refused(recipe):
    other = copy.deepcopy(recipe)
    del other["tasks"]["topic"]
    del other["datasets"]["texts"]
    message = r"^compare: joint and other should have the same tasks\. 'topic' is type text-classification, pooling cls"
    with pytest.raises(RecipeError, match=message):
        plan_comparison([side(recipe), side(other, "other")], [1])
    other = copy.deepcopy(recipe)
    other["tasks"]["topic"]["pooling"] = "mean"
    with pytest.raises(RecipeError, match=r"type text-classification, pooling mean in other\."):
        plan_comparison([side(recipe), side(other, "other")], [1])


def test_recipes_with_different_test_rows_are_refused(recipe):
    other = copy.deepcopy(recipe)
    files = other["datasets"]["words"]["data_files"]
    files["test"] = files["validation"]
    with pytest.raises(RecipeError, match=r"joint and other should have the same test rows for 'pos'"):
        plan_comparison([side(recipe), side(other, "other")], [1])


def test_a_task_without_test_labels_moves_the_comparison_to_validation(recipe):
    del recipe["datasets"]["texts"]["data_files"]["test"]
    plan = plan_comparison([side(recipe)], [1])
    assert plan.split == "validation"
    on_validation, defaults = plan.notes
    assert on_validation.startswith("all tasks are compared on validation, since test has no labels for topic")
    assert defaults.startswith(
        "joint has defaults for several tasks (training.head_learning_rate, loss.weights.topic; values: mtl-nlp plan)"
    )
    del recipe["datasets"]["texts"]["data_files"]["validation"]
    with pytest.raises(RecipeError, match=r"should have labels for all tasks: topic has no labels in either"):
        plan_comparison([side(recipe)], [1])


def test_variables_stay_in_the_recipes_of_runs(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("RATE_OF_RUNS", "0.000125")
    recipe["training"]["learning_rate"] = "${RATE_OF_RUNS}"
    recipe["baselines"] = {"training": {"learning_rate": "${RATE_OF_RUNS}"}}
    path = tmp_path / "joint.yaml"
    path.write_text(yaml.safe_dump(recipe))
    loaded = RecipeSide("joint", "joint.yaml", Recipe.load(path), [list(recipe["tasks"])])
    for job in plan_comparison([loaded], [1]).jobs():
        assert job.recipe["training"]["learning_rate"] == "${RATE_OF_RUNS}"
