"""The command `compare` without its terminal: sides are read, trained where needed, and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, get_args

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.hub.model_card import write_model_card
from mtl_nlp.messages import counted, one_line, table, time_text
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run_folder import (
    COMPARISON_NAME,
    REPORT_NAME,
    RESULTS_NAME,
    checkpoint_folders,
    read_results,
    saved_recipe,
)
from mtl_nlp.training.folder import locked
from mtl_nlp.transfer.comparison import Comparison, compare_measured
from mtl_nlp.transfer.differing import describe_differences, name_of_model
from mtl_nlp.transfer.jobs import Job, JobRunner, check_jobs, folder_of, is_complete
from mtl_nlp.transfer.measured import Measured, measure_finished, measure_jobs, measure_predictions, tasks_of
from mtl_nlp.transfer.planning import Match, plan_comparison
from mtl_nlp.transfer.sides import SINGLE, FinishedSide, PredictionsSide, RecipeSide, Side, check_names, read_sides
from mtl_nlp.transfer.speed import rows_per_second

_OWN = ("runs", "recipes", "logs", "predictions", COMPARISON_NAME, REPORT_NAME)
"""The names of what a comparison writes into its folder."""


def compare(
    recipes: Sequence[str | Path | Recipe | Side] | str | Path | Recipe,
    seeds: int | Sequence[int] = 3,
    output: str | Path | None = None,
    *,
    match: Match = "passes",
    jobs: int = 1,
    learning_curve: bool = False,
    allow_code: bool = False,
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Train recipes and each of their tasks alone with several seeds, and compare the scores.

    Every run is a folder with a key of its content. A second call trains only what is missing.

    Args:
        recipes: the recipes of the joint sides, as objects or paths; also paths of finished runs, of files of groups
            and of files of predictions. Recipes are several ways to share the same tasks.
        seeds: the seeds, or their number: 3 stands for the seeds 1, 2, 3.
        output: the folder of the comparison; by default `<output_dir>-compare` of the first recipe.
        match: the budget of the single runs: `passes`, as many passes over each task's rows as the joint run, or
            `compute`, the joint run's total of encoder passes.
        jobs: the number of runs that train at once.
        learning_curve: whether all sides are also trained on 25 % and 50 % of the training rows.
        allow_code: whether recipes that are given by their paths may run the Python code that they name, see
            `Recipe.load`.
        report: a function that shows a line to the user, such as `print`.

    Raises:
        CommandError: if the sides cannot be compared.
        RecipeError: if a recipe is not valid, or the recipes have different tasks or test rows.
        DataError: if data cannot be loaded, or the sides differ in their texts or gold labels.
        RunError: if a run failed.
    """
    say = report or _say_nothing
    sides = _sides_of([recipes] if isinstance(recipes, str | Path | Recipe) else recipes, allow_code)
    trained = [side for side in sides if isinstance(side, RecipeSide)]
    beside = default_output(sides)
    folder = beside if output is None else Path(output)
    check_folder(folder, [side.name for side in sides], [task for side in trained[:1] for task in side.recipe.tasks])
    check_jobs(jobs)
    if match not in get_args(Match):
        raise CommandError(f"compare: `match` should be {' or '.join(get_args(Match))}. Found {match!r}.")
    if not trained:
        if learning_curve:
            raise CommandError("--learning-curve: trains recipes on fewer rows, and no recipe is named.")
        measured = _measured(sides, [])
        entries: dict[str, Any] = {
            "match": None,
            "differs": differences_of_runs(measured),
            "warnings": [],
            "notes": _notes(measured),
        }
        for line in _lines(entries["notes"], entries["differs"], []):
            say(line)
        with locked(folder):
            return compare_measured(measured, folder, plan=entries, curves={}, report=say)
    plan = plan_comparison(trained, seeds_of(seeds), match, learning_curve=learning_curve)
    entries = {"match": plan.match, "differs": plan.differs, "warnings": plan.warnings, "notes": plan.notes}
    for line in _lines(plan.notes, plan.differs, plan.warnings):
        say(line)
    with locked(folder):
        JobRunner(folder, jobs, plan.split, say).run(list(plan.jobs()))
        curves = {share: [measure_jobs(side, folder) for side in found] for share, found in plan.curves.items()}
        measured = _measured(sides, [measure_jobs(side, folder) for side in plan.sides])
        for line in _lines(_notes(measured), [], []):
            say(line)
        entries["notes"] = [*plan.notes, *_notes(measured)]
        comparison = compare_measured(measured, folder, plan=entries, curves=curves, report=say)
        for job in plan.jobs():  # the cards were written before there was a comparison
            write_model_card(folder_of(folder, job))
        return comparison


def differences_of_runs(sides: Sequence[Measured]) -> list[str]:
    """Return a sentence for each finished run whose settings differ from those of the first, if both have a recipe.

    Args:
        sides: the sides, of which the first runs are compared.
    """
    named = []
    for side in sides:
        models = next(iter(side.models.values()), [])
        for model in models:
            if (recipe := saved_recipe(model.folder)) is not None:
                data = recipe.model_dump(exclude_unset=True)
                data.pop("output_dir", None)
                data.get("training", {}).pop("seed", None)
                named.append((name_of_model(side.name, model.tasks, len(models)), data))
    return describe_differences(named)


def _lines(notes: Sequence[str], differs: Sequence[str], warnings: Sequence[str]) -> list[str]:
    return [*(f"note: {each}" for each in [*notes, *differs]), *(f"warning: {each}" for each in warnings)]


def _notes(measured: Sequence[Measured]) -> list[str]:
    return [note for side in measured for note in side.notes]


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds 1 to n for a number n, or the given seeds.

    Raises:
        CommandError: if there is no seed, a seed is not an integer, or a seed is given twice.
    """
    found = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    if not found or len(set(found)) < len(found) or not all(isinstance(seed, int) for seed in found):
        raise CommandError(
            f"compare: `seeds` should be a number of seeds, or at least one integer, each given once. Found {seeds!r}."
        )
    return found


def default_output(sides: Sequence[Side]) -> Path:
    """Return the folder of a comparison beside the output of its first recipe or run.

    Raises:
        CommandError: if all sides are files of predictions.
    """
    first = next((side for side in sides if not isinstance(side, PredictionsSide)), None)
    if first is None:
        raise CommandError(
            "compare: predictions alone do not say the types of their tasks. Name a recipe or a run too."
        )
    if isinstance(first, RecipeSide):
        return Path(f"{first.recipe.output_dir}-compare")
    folder = first.runs[0][0].folder.resolve()
    of_comparison = folder.parents[1]  # a run may lie in the folder of a comparison, which has no room for another one
    beside = of_comparison if (of_comparison / COMPARISON_NAME).is_file() else folder
    return Path(f"{beside}-compare")


def check_folder(folder: Path, sides: Collection[str], tasks: Sequence[str]) -> None:
    """Check that a folder is new, empty or that of a comparison of the same tasks and of no other sides.

    Args:
        folder: the folder of the comparison.
        sides: the names of the sides.
        tasks: the tasks to compare; empty if unknown.

    Raises:
        CommandError: if the folder has other files, or a comparison of different tasks or with other sides.
    """
    if folder.is_file():
        raise CommandError(f"--output: {folder} is a file. Name a folder.")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    # Hidden files are the lock, what a killed command was writing, and those of file managers.
    if foreign := [name for name in names if name not in _OWN and not name.startswith(".")]:
        raise CommandError(
            f"--output: {folder} holds files that do not belong to a comparison, such as {foreign[0]}. Choose a new or "
            f"empty folder."
        )
    path = folder / COMPARISON_NAME
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, others = list(content["tasks"]), [side for side in content["sides"] if side not in {*sides, SINGLE}]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}). Delete the file; the runs are kept.") from error
    if tasks and set(found) != set(tasks):
        raise CommandError(
            f"--output: {folder} holds a comparison of the tasks {', '.join(found)}, and not of {', '.join(tasks)}. "
            f"Choose a different folder."
        )
    if others:
        raise CommandError(
            f"--output: {folder} holds a comparison with the side {others[0]}, which would be lost. Name this side "
            f"too, or choose a different folder."
        )


def describe_runs(
    sides: Sequence[Side], seeds: int | Sequence[int], output: Path, match: Match, *, learning_curve: bool
) -> str:
    """Return a table of all runs of a comparison, and the estimated time of those that are missing.

    The estimate rests on the rows per second of finished runs in the folder, or else on a few measured steps.

    Args:
        sides: the sides.
        seeds: as in `compare`.
        output: the folder of the comparison.
        match: as in `compare`.
        learning_curve: as in `compare`.

    Raises:
        CommandError: if no side is trained.
        RecipeError: if a recipe is not valid, or the recipes have different tasks or test rows.
        DataError: if data cannot be loaded.
    """
    trained = [side for side in sides if isinstance(side, RecipeSide)]
    if not trained:
        raise CommandError("--dry-run: lists the runs of recipes. Finished runs and predictions need no training.")
    check_folder(output, [side.name for side in sides], list(trained[0].recipe.tasks))
    plan = plan_comparison(trained, seeds_of(seeds), match, learning_curve=learning_curve)
    jobs = list({job.key: job for job in plan.jobs()}.values())  # a run that two sides share is trained once
    done = {job: is_complete(output, job, plan.split) for job in jobs}
    known = {job.side: _speed_of(output, job) for job in jobs if done[job]}
    missing = [job for job in jobs if not done[job]]
    speed = next(iter(known.values()), 0.0) or (rows_per_second(plan.first) if missing else 0.0)
    seconds = {job: job.rows / (known.get(job.side) or speed) for job in missing}
    rows = [
        (
            job.name,
            "done" if done[job] else _state(output, job),
            round(job.rows),
            "" if done[job] else time_text(seconds[job]),
        )
        for job in jobs
    ]
    total = (
        f"{len(missing)} of {counted(len(jobs), 'run')} {'is' if len(missing) == 1 else 'are'} missing; training them "
        f"takes about {time_text(sum(seconds.values()))}, without start and scoring."
    )
    notes = _lines(plan.notes, plan.differs, plan.warnings)
    parts = [
        table(("run", "state", "rows", "training"), rows),
        total if missing else f"{counted(len(jobs), 'run is', 'runs are')} done.",
    ]
    return "\n\n".join([*(["\n".join(notes)] if notes else []), *parts])


def _speed_of(output: Path, job: Job) -> float:
    training = read_results(folder_of(output, job) / RESULTS_NAME).get("training", {})
    return float(training.get("rows_per_second", 0.0))


def _state(output: Path, job: Job) -> str:
    return "interrupted" if any(checkpoint_folders(folder_of(output, job))) else "missing"


def _sides_of(given: Sequence[str | Path | Recipe | Side], allow_code: bool) -> list[Side]:
    sides: list[Side] = []
    for each in given:
        if isinstance(each, Recipe):
            name = Path(each.output_dir).name
            sides.append(RecipeSide(name, name, each, [list(each.tasks)]))
        elif isinstance(each, RecipeSide | FinishedSide | PredictionsSide):
            sides.append(each)
    sides += read_sides([str(each) for each in given if isinstance(each, str | Path)], allow_code=allow_code)
    check_names(sides)
    return sides


def _measured(sides: Sequence[Side], trained: Sequence[Measured]) -> list[Measured]:
    """Return all sides with their scores; files of predictions come last, since the runs say the tasks' types."""
    finished = [measure_finished(side) for side in sides if isinstance(side, FinishedSide)]
    known = [*trained, *finished]
    tasks = tasks_of(known)
    return [*known, *(measure_predictions(side, tasks) for side in sides if isinstance(side, PredictionsSide))]


def _say_nothing(line: str) -> None:
    """Show nothing."""
