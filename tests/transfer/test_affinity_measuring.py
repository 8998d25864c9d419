from __future__ import annotations

import json
import shutil

import pytest
import yaml

import mtl_nlp
from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.transfer.affinity_measuring import affinity, describe_proposal
from mtl_nlp.transfer.sides import RecipeSide, read_sides


@pytest.fixture
def recipe(two_tasks, tmp_path) -> dict:
    data = two_tasks(tmp_path)
    data["datasets"]["words"]["max_rows"] = data["datasets"]["texts"]["max_rows"] = {"train": 40, "validation": 10}
    return data


def test_affinities_are_measured_once_and_give_recipes_of_groups(recipe, tmp_path):
    said: list[str] = []
    folder = tmp_path / "found"
    found = mtl_nlp.affinity(recipe, steps=8, output=folder, report=said.append)
    assert [line for line in said if "8 steps with 8 measurements, about" in line]
    assert found.content["measured"] == {"steps": 8, "every": 1, "wanted_steps": 8}
    assert list(found.to_pandas().columns) == ["helper", "task", "value", "low", "high", "word"]
    assert [each["models"] for each in found.content["groupings"]] == [1, 2]
    assert sum(each["chosen"] for each in found.content["groupings"]) == 1
    assert found.content["cosines"][0]["tasks"] == ["pos", "topic"]

    (side,) = read_sides([str(folder / "groups.yaml")])
    assert isinstance(side, RecipeSide)
    assert sorted(task for group in side.groups for task in group) == ["pos", "topic"]
    for group, own in zip(found.groups, side.recipes, strict=True):
        assert list(own.tasks) == group["tasks"]

    assert yaml.safe_load((folder / "groups.yaml").read_text())["recipe"] == "recipe.yaml"

    said.clear()
    again = affinity(recipe, steps=8, models=1, output=folder, report=said.append)
    assert said == []  # nothing is measured again
    assert again.content["effects"] == found.content["effects"]
    assert again.groups == [{"tasks": ["pos", "topic"], "serves": ["pos", "topic"]}]
    assert sorted(path.name for path in folder.glob("group-*.yaml")) == ["group-1.yaml"]
    assert Recipe.load(folder / "group-1.yaml").output_dir == f"{recipe['output_dir']}-group-1"


def test_a_measurement_is_shortened_to_its_budget_or_refused(recipe, tmp_path):
    with pytest.raises(CommandError, match=r"^--budget: too short\. 4 steps with 4 measurements take about"):
        affinity(recipe, budget=0.001, output=tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_what_cannot_be_measured_is_refused(recipe, tmp_path, monkeypatch):
    output = tmp_path / "found"
    with pytest.raises(CommandError, match=r"^--models: should be an integer of at least 1\. Found 0\."):
        affinity(recipe, models=0, output=output)
    with pytest.raises(CommandError, match=r"^--budget: should be a time above 0"):
        affinity(recipe, budget=0, output=output)
    one = {**recipe, "tasks": {"pos": recipe["tasks"]["pos"]}, "datasets": {"words": recipe["datasets"]["words"]}}
    with pytest.raises(CommandError, match=r"^affinity: measures which tasks help which, and the recipe has one task"):
        affinity(one, output=output)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CommandError, match=r"^affinity: runs in one process"):
        affinity(recipe, output=output)
    monkeypatch.delenv("WORLD_SIZE")
    output.mkdir()
    (output / "model.safetensors").touch()
    with pytest.raises(CommandError, match=r"^--output: .* such as model\.safetensors"):
        affinity(recipe, output=output)
    stream = {**recipe["datasets"]["words"], "streaming": True}
    stream.pop("max_rows")
    streamed = {**recipe, "datasets": {**recipe["datasets"], "words": stream}}
    streamed["training"] = {**recipe["training"], "eval_strategy": "no"}
    with pytest.raises(RecipeError, match=r"^datasets\.words: the affinity is measured on random rows"):
        affinity(streamed, output=tmp_path / "other")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pairs_are_trained_once_and_scored_on_validation(recipe, tmp_path):
    said: list[str] = []
    folder = tmp_path / "found"
    found = affinity(recipe, pairwise=True, steps=4, seeds=1, output=folder, report=said.append)
    runs = sorted((folder / "pairs" / "runs").iterdir())
    assert len(runs) == 3
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    assert {each["split"] for each in results} == {"validation"}
    assert found.content["measured"]["runs"] == 3
    scores = {tuple(each["tasks"]): each["tasks"] for each in results}
    gain = scores["pos", "topic"]["topic"]["accuracy"] - scores["topic",]["topic"]["accuracy"]
    assert found.content["effects"]["pos"]["topic"]["value"] == pytest.approx(gain)
    for run in (folder / "pairs" / "recipes").iterdir():
        assert all("test" not in data["data_files"] for data in yaml.safe_load(run.read_text())["datasets"].values())

    (folder / "affinity.json").unlink()
    shutil.rmtree(runs[0])
    said.clear()
    affinity(recipe, pairwise=True, steps=4, seeds=1, output=folder, report=said.append)
    assert any("3 runs, of which 1 are missing" in line for line in said)
    assert sum("training, log in" in line for line in said) == 1


def test_sentences_name_groups_helpers_and_lone_tasks():
    effect = {"value": 0.1, "low": 0.05, "high": 0.15}
    content = {
        "effects": {"a": {"b": {**effect, "word": "hurts"}}, "b": {"a": {**effect, "word": "unclear"}}},
        "groups": [{"tasks": ["a", "b"], "serves": ["a"]}, {"tasks": ["b"], "serves": ["b"]}],
    }
    assert describe_proposal(content) == [
        "a hurts b.",
        "One encoder for a with the help of b.",
        "An encoder of its own for b.",
    ]
