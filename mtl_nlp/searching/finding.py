"""The command `search` without its terminal: trials of a recipe, the best of them again, and the recipe found."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.errors import CommandError, RecipeError, needs_extra, writing_to
from mtl_nlp.messages import conceal, json_text, seconds_of
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import check_splits
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.run.reduction import exposures, reduce_recipe
from mtl_nlp.run_folder import LOCK_NAME
from mtl_nlp.searching.objectives import Objectives, objectives_of
from mtl_nlp.searching.result import (
    BEST_NAME,
    PAGE_NAME,
    SEARCH_NAME,
    SearchResult,
    alone_in,
    write_best,
    write_search,
)
from mtl_nlp.searching.sentences import gain_text, sentences
from mtl_nlp.searching.shipped import default_space
from mtl_nlp.searching.space import CheckedSpace, check_space
from mtl_nlp.searching.trials import check_fidelity

if TYPE_CHECKING:
    from mtl_nlp.searching.rounds import SearchedSide
    from mtl_nlp.searching.studies import Budget, Studies

Say = Callable[[str], None]

_OWN = (
    SEARCH_NAME,
    BEST_NAME,
    PAGE_NAME,
    "study.log",
    "study.log.lock",
    "trials",
    "again",
    "single",
    "best",
    "compare",
)
"""The names in the folder of a search: what the search writes, and the runs of its recipe."""


def search(
    recipe: Recipe | str | Path | Mapping[str, Any],
    trials: int | None = None,
    budget: float | str | None = None,
    output: str | Path | None = None,
    *,
    baselines: bool = False,
    allow_code: bool = False,
    report: Say | None = None,
    name: str | None = None,
) -> SearchResult:
    """Search for better settings of a recipe on its validation splits, by the recipe's section `search`.

    Trial 0 is the recipe as shipped. The best five trials and trial 0 run again with fresh seeds, and the best mean of
    these runs decides. A second call continues, and several processes may work on the same search. The search never
    looks at the test splits.

    Args:
        recipe: the recipe, its file, or its keys and values.
        trials: the number of trials, besides the runs with fresh seeds.
        budget: the time in which trials train, in seconds or as a text such as `40m`.
        output: the folder of the search; by default `<output_dir>-search`.
        baselines: whether the training of each task alone is searched too, with as many trials for each task, and with
            the same time for all tasks together. `best.yaml` then has their settings in its section `baselines`.
        allow_code: whether to run the Python code that the recipe names, see `Recipe.load`.
        report: a function that shows a line to the user, such as `print`.
        name: the name of the recipe in `best.yaml` and the report; by default that of its file.

    Raises:
        CommandError: if Optuna is not installed, there is no budget, the budget is too small for one trial, or the
            folder has the search of a different recipe.
        RecipeError: if the recipe or its space is not valid.
        DataError: if the data cannot be loaded.
        RunError: if none of the first trials is complete.
    """
    say = report or _say_nothing
    name = name or (Path(recipe).name if isinstance(recipe, str | Path) else "RECIPE")
    recipe = Recipe.read(recipe, allow_code=allow_code)
    with needs_extra("search"):
        from mtl_nlp.searching.studies import Budget, Studies
    limit = _limit(trials, budget)
    folder = Path(f"{recipe.output_dir}-search" if output is None else output)
    check_folder(folder)
    run = _prepared(recipe)
    space = _space_of(run)
    for line in [*run.notes, *space.left_out]:
        say(f"note: {line}")
    key = hashlib.sha256(
        json_text(
            [recipe.sha256(), space.describe(), recipe.search.objectives, recipe.search.fidelity], sort_keys=True
        ).encode()
    ).hexdigest()
    with writing_to(folder, "--output"):
        studies = Studies(folder, key)
    needs_alone = baselines or "delta_m" in recipe.search.objectives
    alone = {}
    if needs_alone and len(recipe.tasks) > 1:
        alone = _search_alone(run, space, studies, limit if baselines else Budget(1), say)
    elif needs_alone:
        raise CommandError("--baselines: the recipe has one task, so that its search is that of the task alone.")
    reference = {task: side["reference"] for task, side in alone.items()}
    objectives = objectives_of(recipe, run, reference if "delta_m" in recipe.search.objectives else None)
    say(_cost_text(limit, list(space.describe())))
    content = _search_side(_side("joint", folder, run, space, objectives, limit), studies, say)
    content |= {"recipe": name, "single": alone, "command": _command(name, trials, budget, baselines=baselines)}
    with alone_in(folder):
        return _write(folder, recipe, content, baselines={} if not baselines else alone)


def _write(folder: Path, recipe: Recipe, content: dict[str, Any], baselines: Mapping[str, Any]) -> SearchResult:
    content["sentences"] = sentences(content)
    with writing_to(folder, "--output"):
        write_search(folder, content)
        if content["best"] is not None:
            values = next(each["changes"] for each in content["trials"] if each["number"] == content["best"]["number"])
            comments = [f"Found by: {content['command']}", gain_text(content), *content["sentences"][1:]]
            comments += [f"Scores on validation: {_scores_text(content)}"]
            write_best(folder, recipe, values, comments, {task: side["training"] for task, side in baselines.items()})
    return SearchResult(folder, content)


def _scores_text(content: Mapping[str, Any]) -> str:
    trial = next(each for each in content["trials"] if each["number"] == content["best"]["number"])
    firsts = {task: next(iter(scores.items())) for task, scores in trial["scores"].items() if scores}
    return ", ".join(f"{task} {score} {value:.4f}" for task, (score, value) in firsts.items())


def _limit(trials: int | None, budget: float | str | None) -> Budget:
    from mtl_nlp.searching.studies import Budget

    if trials is None and budget is None:
        raise CommandError("search: name a budget: --trials 30, or --budget 40m.")
    if trials is not None and trials < 1:
        raise CommandError(f"--trials: should be at least 1. Found {trials}.")
    return Budget(trials, None if budget is None else seconds_in(budget))


def seconds_in(budget: float | str) -> float:
    """Return a time in seconds.

    Args:
        budget: the seconds, or a text such as `90s`, `40m` or `1.5h`.

    Raises:
        CommandError: if the text is not such a time, or the time is not above 0.
    """
    seconds = seconds_of(budget) if isinstance(budget, str) else budget
    if seconds is None or seconds <= 0:
        raise CommandError(f"--budget: should be a time above 0, such as 90s, 40m or 1.5h. Found {budget!r:.80}.")
    return seconds


def check_folder(folder: Path) -> None:
    """Check that a folder is new, empty or that of a search.

    Raises:
        CommandError: if the folder has other files, or the command was launched with several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError(
            "search: trials train in one process each. Call the command without `accelerate launch`, several times to "
            "use several devices."
        )
    if folder.is_file():
        raise CommandError(f"--output: {folder} is a file. Name a folder.")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if foreign := [name for name in names if name not in (*_OWN, LOCK_NAME) and not name.startswith(".")]:
        raise CommandError(
            f"--output: {folder} holds files that do not belong to a search, such as {foreign[0]}. Choose a new or "
            f"empty folder."
        )


def _prepared(recipe: Recipe) -> Run:
    arguments = training_arguments(recipe)  # before the data are loaded
    run = prepare(recipe)
    check_splits(run, arguments)
    if recipe.search.fidelity is not None:
        check_fidelity(run)
    objectives_of(recipe, run)
    run.try_model()
    return run


def _space_of(run: Run) -> CheckedSpace:
    """Return the checked space of a recipe, or the default space.

    Raises:
        RecipeError: if the space is not valid, or has no key.
    """
    given = run.recipe.search.space
    space = check_space(given or default_space(run), run, is_default=not given)
    if not space.dimensions:
        raise RecipeError("search.space: there is no key to search. Name keys and their values.")
    return space


def _side(
    label: str, folder: Path, run: Run, space: CheckedSpace, objectives: Objectives, budget: Budget
) -> SearchedSide:
    from mtl_nlp.searching.rounds import SearchedSide

    return SearchedSide(label, folder, run, space, objectives, run.recipe.search, budget)


def _search_side(side: SearchedSide, studies: Studies, say: Say) -> dict[str, Any]:
    from mtl_nlp.searching.describing import describe
    from mtl_nlp.searching.rounds import Rounds

    rounds = Rounds(side, studies, say)
    rounds.run()
    return describe(rounds)


def _search_alone(run: Run, space: CheckedSpace, studies: Studies, limit: Budget, say: Say) -> dict[str, Any]:
    """Search the training arguments of each task alone, with an equal part of the time.

    Returns:
        For each task, the content of its search, the primary score of its best model as `reference`, and its best
        `training` arguments, for the section `baselines`.
    """
    from mtl_nlp.searching.studies import Budget

    written = run.recipe.as_written()
    used = exposures(run, training_arguments(run.recipe))
    found: dict[str, Any] = {}
    for task in run.recipe.tasks:
        reduced = reduce_recipe(written, [task], used, alone=True)
        settings = run.recipe.search.model_dump(exclude={"space", "objective"}, exclude_defaults=True)
        data = {**reduced, "output_dir": f"{run.recipe.output_dir}-{task}", "search": {**settings, "objective": task}}
        alone = _prepared(Recipe.from_written(data, allow_code=bool(run.recipe.own_code)))
        own = _space_alone(run, alone)
        folder = studies.folder / "single" / re.sub(r"[^A-Za-z0-9]+", "-", task)
        objectives = objectives_of(alone.recipe, alone)
        part = limit.share(1 / len(run.recipe.tasks)) if own.dimensions else Budget(1)
        side = _side(f"single {task}", folder, alone, own, objectives, part)
        content = _search_side(side, studies, say)
        keys = [key for key in {**own.describe(), **space.describe()} if key.startswith("training.")]
        found[task] = {**content, "training": _training_of(alone, content, keys), "reference": content["best"]["mean"]}
    return found


def _space_alone(run: Run, alone: Run) -> CheckedSpace:
    """Return the space of a task alone: the training arguments of the recipe's space, or of the default space."""
    given = {key: values for key, values in run.recipe.search.space.items() if key.startswith("training.")}
    if run.recipe.search.space:
        return check_space(given, alone)
    default = {key: values for key, values in default_space(alone).items() if key.startswith("training.")}
    return check_space(default, alone, is_default=True)


def _training_of(alone: Run, content: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return the best training arguments of a task alone, with a value for every searched key of the joint recipe."""
    trial = next(each for each in content["trials"] if each["number"] == content["best"]["number"])
    arguments = vars(training_arguments(alone.recipe))
    names = [key.removeprefix("training.") for key in keys]
    shipped = {name: alone.recipe.training.get(name, arguments.get(name)) for name in names}
    return shipped | {key.removeprefix("training."): value for key, value in trial["changes"].items()}


def _cost_text(limit: Budget, keys: list[str]) -> str:
    most = [] if limit.trials is None else [f"{limit.trials} trials"]
    most += [] if limit.seconds is None else [f"{limit.seconds / 60:.3g} min of training"]
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    again = "; then the best five and the recipe as shipped run again with two fresh seeds"
    return f"searching {shown}: at most {' or '.join(most)}{again}{', within the time' if limit.seconds else ''}"


def _command(name: str, trials: int | None, budget: float | str | None, *, baselines: bool) -> str:
    options = [] if trials is None else [f"--trials {trials}"]
    options += [] if budget is None else [f"--budget {budget}"]
    return conceal(" ".join(["mtl-nlp search", name, *options, *(["--baselines"] if baselines else [])]))


def _say_nothing(line: str) -> None:
    """Show nothing."""
