from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from plain_recipes import PLAIN, write

from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.transfer.sides import SINGLE, FinishedSide, PredictionsSide, RecipeSide, read_sides


def finished(folder: Path, tasks: list[str], seed: int, rate: float = 1e-4, predictions: bool = True) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    scores = {task: {"accuracy": 0.5} for task in tasks}
    (folder / "results.json").write_text(json.dumps({"split": "test", "tasks": scores, "mtl_score": 0.5}))
    if predictions:
        (folder / "predictions.jsonl").touch()
    labels = {task: PLAIN["datasets"]["ewt"]["labels"][task] for task in tasks}
    recipe = {
        **PLAIN,
        "tasks": {task: PLAIN["tasks"][task] for task in tasks},
        "datasets": {"ewt": {**PLAIN["datasets"]["ewt"], "labels": labels}},
        "training": {"seed": seed, "learning_rate": rate},
        "output_dir": str(folder),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return str(folder)


def test_a_recipe_is_one_group_of_all_tasks(tmp_path):
    (side,) = read_sides([str(write(tmp_path, PLAIN))], ["training.seed=3"])
    assert isinstance(side, RecipeSide)
    assert (side.name, side.groups) == ("recipe", [["pos", "genre"]])
    assert side.recipe.training["seed"] == 3


def test_groups_name_the_tasks_of_each_model(tmp_path):
    write(tmp_path, PLAIN)
    path = tmp_path / "apart.yaml"
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "groups": {"texts": ["genre"], "words": ["pos"]}}))
    (side,) = read_sides([str(path)])
    assert isinstance(side, RecipeSide)
    assert (side.name, side.groups) == ("apart", [["genre"], ["pos"]])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"all": ["pos", "xyz"]}, r"apart\.yaml: groups: recipe\.yaml has no task 'xyz'\. It has pos, genre\."),
        ({"all": ["pos"]}, r"apart\.yaml: groups: every task should be in one group\. 'genre' is in 0\."),
        ({"a": ["pos", "genre"], "b": ["pos"]}, r"every task should be in one group\. 'pos' is in 2\."),
        ({"all": ["pos", "genre"], "none": []}, r"apart\.yaml: groups\.none: "),
        ({}, r"apart\.yaml: groups: "),
        (["pos"], r"apart\.yaml: groups: "),
    ],
)
def test_groups_that_do_not_cover_the_tasks_are_refused(tmp_path, groups, message):
    write(tmp_path, PLAIN)
    path = tmp_path / "apart.yaml"
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "groups": groups}))
    with pytest.raises(RecipeError, match=message):
        read_sides([str(path)])


def test_a_group_may_have_a_recipe_of_its_own_and_serve_a_part_of_it(tmp_path):
    write(tmp_path, PLAIN)
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump({**PLAIN, "training": {"learning_rate": 3e-4}}))
    path = tmp_path / "apart.yaml"
    groups = {"texts": {"recipe": "texts.yaml", "serves": ["genre"]}, "words": ["pos"]}
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "groups": groups}))
    (side,) = read_sides([str(path)], ["training.seed=3"])
    assert isinstance(side, RecipeSide)
    assert side.groups == [["genre"], ["pos"]]
    own, none = side.recipes
    assert none is None
    assert set(own.tasks) == {"pos", "genre"}
    assert own.training == {"learning_rate": 3e-4, "seed": 3}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"recipe": "texts.yaml", "serves": ["xyz"]}, r"groups\.texts\.serves: texts\.yaml has no task 'xyz'\. It has"),
        ({"recipe": "texts.yaml"}, r"every task should be in one group\. 'pos' is in 2\."),
        ({"recipe": "nowhere.yaml"}, r"nowhere\.yaml cannot be read"),
        ({"recipe": "other.yaml", "serves": ["genre"]}, r"groups\.texts: 'genre' should have the same options as in"),
        ({"recipe": "texts.yaml", "serve": ["genre"]}, r"groups\.texts\.serve: unknown key\. Did you mean 'serves'\?"),
        ({"recipe": "texts.yaml", "serves": []}, r"apart\.yaml: groups\.texts\.serves: "),
        ({"serves": ["genre"]}, r"groups\.texts: should be a list of tasks, or name the `recipe` of the group"),
        ("texts.yaml", r"groups\.texts: should be a section with the keys tasks, recipe, serves\. Found 'texts\.yaml'"),
    ],
)
def test_recipes_of_groups_that_do_not_cover_the_tasks_are_refused(tmp_path, group, message):
    write(tmp_path, PLAIN)
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(PLAIN))
    other = {**PLAIN["tasks"], "genre": {"type": "text-classification", "pooling": "mean"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**PLAIN, "tasks": other}))
    path = tmp_path / "apart.yaml"
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "groups": {"texts": group, "words": ["pos"]}}))
    with pytest.raises(RecipeError, match=message):
        read_sides([str(path)])


def test_runs_that_differ_in_the_seed_are_one_side(tmp_path):
    folders = [finished(tmp_path / f"joint{seed}", ["pos", "genre"], seed) for seed in (1, 2)]
    other = finished(tmp_path / "other", ["pos", "genre"], 1, rate=3e-4)
    first, second = read_sides([*folders, other])
    assert isinstance(first, FinishedSide)
    assert [[run.folder.name for run in runs] for runs in first.runs] == [["joint1"], ["joint2"]]
    assert second.name == "other"


def test_overrides_need_a_recipe(tmp_path):
    folder = finished(tmp_path / "joint", ["pos", "genre"], 1)
    with pytest.raises(CommandError, match=r"^--set: changes recipes, and no recipe is named\."):
        read_sides([folder], ["training.seed=3"])


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    folders = [finished(tmp_path / name, ["pos", "genre"], 1) for name in ("joint", "copy")]
    with pytest.raises(CommandError, match=r"each seed of a recipe should be given once\. .*joint and .*copy have"):
        read_sides(folders)
    with pytest.raises(CommandError, match=r"the same recipe and the seed 1\."):
        read_sides([folders[0], folders[0]])


def test_a_seed_that_is_a_variable_is_refused(tmp_path):
    folder = finished(tmp_path / "joint", ["pos"], 1)
    recipe = tmp_path / "joint" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 1", "seed: ${SEED}"))
    with pytest.raises(
        CommandError, match=r"the seed of .*joint should be a number\. Found '\$\{SEED\}' in recipe\.yaml"
    ):
        read_sides([folder])


def test_runs_with_one_task_each_are_the_single_side(tmp_path):
    joint = finished(tmp_path / "joint", ["pos", "genre"], 1)
    alone = [finished(tmp_path / f"{task}{seed}", [task], seed) for task in ("pos", "genre") for seed in (2, 1)]
    sides = read_sides([joint, *alone])
    assert [side.name for side in sides] == ["joint", SINGLE]
    assert isinstance(sides[1], FinishedSide)
    assert [[run.folder.name for run in runs] for runs in sides[1].runs] == [["pos1", "genre1"], ["pos2", "genre2"]]


def test_single_runs_of_unequal_number_are_refused(tmp_path):
    joint = finished(tmp_path / "joint", ["pos", "genre"], 1)
    alone = [finished(tmp_path / "p1", ["pos"], 1), finished(tmp_path / "p2", ["pos"], 2)]
    with pytest.raises(CommandError, match=r"one recipe per task\. Found 0 recipes for 'genre'\."):
        read_sides([joint, *alone])
    alone.append(finished(tmp_path / "g1", ["genre"], 1))
    with pytest.raises(CommandError, match=r"as many runs as the others\. Found pos 2, genre 1\."):
        read_sides([joint, *alone])


def test_files_of_predictions_are_sides(tmp_path):
    (tmp_path / "theirs.jsonl").touch()
    (side,) = read_sides([str(tmp_path / "theirs.jsonl")])
    assert side == PredictionsSide("theirs", "theirs.jsonl", tmp_path / "theirs.jsonl")


def test_what_is_no_side_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"there is no file or folder .*nowhere\.yaml"):
        read_sides([str(tmp_path / "nowhere.yaml")])
    with pytest.raises(CommandError, match=r"is not the folder of a run: it has no config\.json"):
        read_sides([str(tmp_path)])
    unscored = finished(tmp_path / "run", ["pos"], 1, predictions=False)
    with pytest.raises(CommandError, match=r"has no scores or no predictions\.jsonl\. Write both: mtl-nlp evaluate"):
        read_sides([unscored])


def test_sides_need_different_names(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, PLAIN)
    with pytest.raises(CommandError, match=r"two sides are named 'recipe'\. Rename one of the files\."):
        read_sides([str(tmp_path / folder / "recipe.yaml") for folder in ("a", "b")])
    single = tmp_path / "single.yaml"
    single.write_text(yaml.safe_dump(PLAIN))
    with pytest.raises(CommandError, match=r"'single' is the name of the runs with one task each, which the recipes"):
        read_sides([str(single)])
