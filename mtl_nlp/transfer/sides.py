"""The sides of a comparison: recipes, groups of tasks, finished runs, and files of predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError, model_validator

from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.recipe.file import read_yaml
from mtl_nlp.recipe.problems import explain
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.section import Section
from mtl_nlp.run_folder import CONFIG_NAME, PREDICTIONS_NAME, RECIPE_NAME, RESULTS_NAME, read_results, saved_recipe

SINGLE = "single"
"""The side in which every task has a model of its own."""


class RecipeSide(NamedTuple):
    """A recipe, whose tasks are trained together, or in groups.

    Attributes:
        name: the name of the side.
        title: a description for the reader.
        recipe: the recipe.
        groups: the tasks that each model is scored on; together the tasks of the recipe.
        recipes: the own recipe of each model, which may have further tasks that only help; None for a model that the
            side's recipe trains. Empty if no model has an own recipe.
    """

    name: str
    title: str
    recipe: Recipe
    groups: list[list[str]]
    recipes: Sequence[Recipe | None] = ()


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
        folder: the folder of the run.
        tasks: the tasks that `results.json` has scores of.
        split: the split of the scores.
        key: the fingerprint of the recipe without its seed.
        seed: the seed of the run.
    """

    folder: Path
    tasks: list[str]
    split: str
    key: str
    seed: int


@dataclass(frozen=True)
class FinishedSide:
    """Finished runs of one recipe with different seeds, or of one recipe per task.

    Attributes:
        name: the name of the side.
        title: a description for the reader.
        runs: the runs of each seed.
    """

    name: str
    title: str
    runs: list[list[FinishedRun]]


@dataclass(frozen=True)
class PredictionsSide:
    """A file of predictions.

    Attributes:
        name: the name of the side.
        title: a description for the reader.
        file: the file.
    """

    name: str
    title: str
    file: Path


Side = RecipeSide | FinishedSide | PredictionsSide


class GroupRecipe(Section):
    """A model of a file of groups. A list of tasks stands for `{tasks: list}`.

    Attributes:
        tasks: the tasks of the model, which are trained as the recipe of the file trains them.
        recipe: a recipe of the model's own, relative to the file, instead of `tasks`. It may have tasks that only help.
        serves: the tasks that a model with a recipe of its own is scored on; all tasks of its recipe by default.
    """

    tasks: list[str] | None = Field(default=None, min_length=1)
    recipe: str | None = None
    serves: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _tasks_in_a_list(cls, given: Any) -> Any:
        if given == []:
            raise ValueError("should name at least one task. Found []")
        return {"tasks": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _has_tasks_or_a_recipe(self) -> GroupRecipe:
        if (self.tasks is None) == (self.recipe is None):
            raise ValueError("should be a list of tasks, or name the `recipe` of the group")
        if self.recipe is None and self.serves is not None:
            raise ValueError("`serves` needs a `recipe` of the group")
        return self


class Groups(Section):
    """A file of groups: several models that together have the tasks of a recipe.

    Attributes:
        recipe: the recipe, relative to the file. It decides the runs of each task alone.
        groups: the name of a model -> its tasks, or its own recipe, see `GroupRecipe`. Every task of the recipe is
            served by one group.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    recipe: str
    groups: dict[str, GroupRecipe] = Field(min_length=1)


def read_sides(paths: Sequence[str], overrides: Sequence[str] = (), *, allow_code: bool = False) -> list[Side]:
    """Return the sides that are named on the command line.

    Args:
        paths: recipes, files of groups, folders of finished runs, and files of predictions (`.jsonl`).
        overrides: `key.path=value` strings for all recipes.
        allow_code: whether the recipes may run the Python code that they name, see `Recipe.load`.

    Raises:
        RecipeError: if a recipe or a file of groups is not valid.
        CommandError: if a path does not name a side, two sides have the same name, or there are overrides and no
            recipe.
    """
    sides: list[Side] = []
    runs: list[FinishedRun] = []
    for each in paths:
        path = Path(each)
        if path.is_dir():
            runs.append(_finished_run(path))
        elif path.suffix == ".jsonl":
            _check_exists(path)
            sides.append(PredictionsSide(path.stem, path.name, path))
        else:
            _check_exists(path)
            sides.append(_recipe_side(path, overrides, allow_code))
    if overrides and not any(isinstance(side, RecipeSide) for side in sides):
        raise CommandError(
            "--set: changes recipes, and no recipe is named. Finished runs and predictions stay as they are."
        )
    sides += _finished_sides(runs)
    check_names(sides)
    return sides


def check_names(sides: Sequence[Side]) -> None:
    """Check that every side has a name of its own.

    Raises:
        CommandError: if two sides have the same name, or a side has that of the side that a comparison adds.
    """
    names = [side.name for side in sides]
    for name in names:
        if names.count(name) > 1:
            raise CommandError(f"compare: two sides are named {name!r}. Rename one of the files.")
        if name == SINGLE and any(isinstance(side, RecipeSide) for side in sides):
            raise CommandError(
                f"compare: {SINGLE!r} is the name of the runs with one task each, which the recipes add. Rename the "
                f"file, or leave out the finished runs with one task each."
            )


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise CommandError(f"compare: there is no file or folder {path}.")


def _recipe_side(path: Path, overrides: Sequence[str], allow_code: bool) -> RecipeSide:
    data = read_yaml(path, ())
    if "groups" not in data:
        recipe = Recipe.load(path, overrides, allow_code=allow_code)
        return RecipeSide(path.stem, path.name, recipe, [list(recipe.tasks)])
    try:
        found = Groups.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, data, Groups)}") from error
    recipe = Recipe.load(path.parent / found.recipe, overrides, allow_code=allow_code)
    own = {
        name: None
        if group.recipe is None
        else Recipe.load(path.parent / group.recipe, overrides, allow_code=allow_code)
        for name, group in found.groups.items()
    }
    served = {name: _served(path, name, group, own[name]) for name, group in found.groups.items()}
    grouped = [task for tasks in served.values() for task in tasks]
    if unknown := [task for task in grouped if task not in recipe.tasks]:
        raise RecipeError(
            f"{path}: groups: {found.recipe} has no task {unknown[0]!r}. It has {', '.join(recipe.tasks)}."
        )
    if missing := [task for task in recipe.tasks if grouped.count(task) != 1]:
        raise RecipeError(
            f"{path}: groups: every task should be in one group. {missing[0]!r} is in {grouped.count(missing[0])}."
        )
    for name, each in own.items():
        tasks = recipe.tasks if each is None else each.tasks
        if changed := [task for task in served[name] if tasks[task] != recipe.tasks[task]]:
            raise RecipeError(
                f"{path}: groups.{name}: {changed[0]!r} should have the same options as in {found.recipe}, since its "
                f"scores are compared. Change one of the recipes."
            )
    groups = [[task for task in recipe.tasks if task in tasks] for tasks in served.values()]
    title = f"{path.name}: {' | '.join(', '.join(group) for group in groups)}"
    return RecipeSide(path.stem, title, recipe, groups, list(own.values()))


def _served(path: Path, name: str, group: GroupRecipe, own: Recipe | None) -> list[str]:
    """Return the tasks that a group is scored on."""
    if own is None:
        return group.tasks or []
    serves = list(own.tasks) if group.serves is None else group.serves
    if unknown := [task for task in serves if task not in own.tasks]:
        raise RecipeError(
            f"{path}: groups.{name}.serves: {group.recipe} has no task {unknown[0]!r}. It has {', '.join(own.tasks)}."
        )
    return serves


def _finished_run(folder: Path) -> FinishedRun:
    if not (folder / CONFIG_NAME).is_file():
        raise CommandError(f"compare: {folder} is not the folder of a run: it has no {CONFIG_NAME}.")
    results = read_results(folder / RESULTS_NAME)
    if "tasks" not in results or not (folder / PREDICTIONS_NAME).is_file():
        raise CommandError(
            f"compare: {folder} has no scores or no {PREDICTIONS_NAME}. Write both: mtl-nlp evaluate {folder} --recipe "
            f"RECIPE --predictions {folder / PREDICTIONS_NAME}."
        )
    recipe = saved_recipe(folder)
    data: dict[str, Any] = {} if recipe is None else recipe.model_dump(exclude_unset=True)
    data.pop("output_dir", None)
    seed = data.get("training", {}).pop("seed", 42)
    if not isinstance(seed, int):
        raise CommandError(
            f"compare: the seed of {folder} should be a number. Found {seed!r} in {RECIPE_NAME}, whose variables are "
            f"not expanded. Write the number there."
        )
    content = json.dumps(data or str(folder), sort_keys=True, default=str)
    key = hashlib.sha256(content.encode()).hexdigest()
    return FinishedRun(folder, list(results["tasks"]), results["split"], key, seed)


def _finished_sides(runs: Sequence[FinishedRun]) -> list[Side]:
    """Group finished runs: runs that differ in the seed alone, and the runs with one task each."""
    if not runs:
        return []
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    by_key: dict[str, list[FinishedRun]] = {}
    for run in runs:
        group = by_key.setdefault(run.key, [])
        # The spread of a run and its copy would be 0, as if chance in training did not matter.
        if same := [other for other in group if other.seed == run.seed]:
            raise CommandError(
                f"compare: each seed of a recipe should be given once. {same[0].folder} and {run.folder} have the same "
                f"recipe and the seed {run.seed}."
            )
        group.append(run)
    alone = {key: group for key, group in by_key.items() if len(group[0].tasks) == 1 and len(tasks) > 1}
    sides: list[Side] = [
        FinishedSide(group[0].folder.name, ", ".join(run.folder.name for run in group), [[run] for run in group])
        for key, group in by_key.items()
        if key not in alone
    ]
    if alone:
        sides.append(_single_side(tasks, list(alone.values())))
    return sides


def _single_side(tasks: Sequence[str], groups: Sequence[Sequence[FinishedRun]]) -> FinishedSide:
    """Return the side of the runs with one task each; every task needs equally many runs."""
    by_task = {task: [group for group in groups if group[0].tasks == [task]] for task in tasks}
    for task, found in by_task.items():
        if len(found) != 1:
            raise CommandError(
                f"compare: the runs with one task each should have one recipe per task. Found {len(found)} recipes for "
                f"{task!r}."
            )
    counts = {task: len(found[0]) for task, found in by_task.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{task} {count}" for task, count in counts.items())
        raise CommandError(f"compare: every task should have as many runs as the others. Found {listed}.")
    ordered = [sorted(found[0], key=lambda run: run.seed) for found in by_task.values()]
    return FinishedSide(SINGLE, "each task alone", [list(runs) for runs in zip(*ordered, strict=True)])
