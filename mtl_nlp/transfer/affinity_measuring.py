"""The command `affinity` without its terminal: who helps whom is measured, and groups are proposed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mtl_nlp.balancing.verdicts import verdict_of
from mtl_nlp.errors import CommandError
from mtl_nlp.messages import json_text, time_text
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_meta_model
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.run.reduction import Exposure, exposures, rows_of
from mtl_nlp.run_folder import write_file
from mtl_nlp.training.folder import locked
from mtl_nlp.transfer.affinity_costs import (
    DEFAULT_BUDGET,
    DEFAULT_STEPS,
    FEWEST_STEPS,
    PairTimes,
    plan_steps,
    recipe_steps,
    share_that_fits,
    time_pairs,
)
from mtl_nlp.transfer.affinity_effects import HURTS, UNCLEAR, Effect, Effects, counted_matrix, effects_of
from mtl_nlp.transfer.affinity_files import PAIRS, Affinity, check_folder, read_affinity, write_affinity
from mtl_nlp.transfer.affinity_pairs import SPLIT, PairPlan, check_pairs, measure_pairs, plan_pairs
from mtl_nlp.transfer.affinity_steps import Measurements, check_measurable, measure_steps
from mtl_nlp.transfer.comparing import seeds_of
from mtl_nlp.transfer.content import content_key, digests_of, encoder_digest
from mtl_nlp.transfer.grouping import Group, Grouping, best_groupings, chosen
from mtl_nlp.transfer.jobs import check_jobs, is_complete

LOOK_AHEAD, PAIRWISE = "look-ahead", "pairwise"
"""The methods, as in `affinity.json`."""

_PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Options:
    """The options of a measurement, which decide whether an earlier one can be used again.

    Attributes:
        method: `look-ahead` or `pairwise`.
        steps: the number of optimizer steps, or None.
        budget: the seconds of the measurement, or None for no limit.
        seeds: the seeds of the pairs; empty for the look-ahead affinity.
    """

    method: str
    steps: int | None
    budget: float | None
    seeds: Sequence[int]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `affinity.json`."""
        return {"steps": self.steps, "budget": self.budget, "seeds": list(self.seeds)}


def affinity(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    pairwise: bool = False,
    models: int = 3,
    steps: int | None = None,
    budget: float | None = None,
    seeds: int | Sequence[int] = 3,
    jobs: int = 1,
    output: str | Path | None = None,
    allow_code: bool = False,
    report: Callable[[str], None] | None = None,
) -> Affinity:
    """Measure which tasks of a recipe help which, and propose groups of tasks that share an encoder.

    The measure is the look-ahead affinity in one short joint training (Fifty et al. 2021; see `affinity_steps`), or,
    with `pairwise`, the validation scores of short trainings of each pair against each task alone. An effect whose
    95 % interval has 0 inside counts as none. The groups are written as recipes, see `write_affinity`. A second call
    with the same recipe and options measures nothing again.

    Args:
        recipe: the recipe, its file, or its keys and values.
        pairwise: whether to train all pairs, of at most eight tasks.
        models: the largest number of encoders.
        steps: the number of optimizer steps of the joint training; with `pairwise`, the steps of the joint training
            whose passes over each dataset the short trainings have. By default, as many as fit into the budget, and at
            most 300 or those of the recipe.
        budget: the seconds of the measurement, 15 minutes by default; no limit if only `steps` is given.
        seeds: the seeds of the pairs, or their number: 3 stands for the seeds 1, 2, 3. With one seed, the intervals
            cover the chance of the validation rows alone.
        jobs: the number of pairs that train at once.
        output: the folder of the result; by default `<output_dir>-affinity`.
        allow_code: whether to run the Python code that the recipe names, see `Recipe.load`.
        report: a function that shows a line to the user, such as `print`.

    Raises:
        CommandError: if there is one task, `models` is below 1, the budget is too short, or the folder has other files.
        RecipeError: if the recipe is not valid, or its tasks share no trained parameters.
        DataError: if data cannot be loaded.
        RunError: if a training failed.
    """
    started, say = time.monotonic(), report or _say_nothing
    recipe = Recipe.read(recipe, allow_code=allow_code)
    budget = DEFAULT_BUDGET if steps is None and budget is None else budget
    method = PAIRWISE if pairwise else LOOK_AHEAD
    options = Options(method, steps, budget, seeds_of(seeds) if pairwise else [])
    _check(recipe, models, options, jobs)
    folder = Path(f"{recipe.output_dir}-affinity" if output is None else output)
    check_folder(folder)
    training_arguments(recipe)  # before the data are loaded
    run = prepare(recipe)
    run.try_model()
    (check_pairs if pairwise else _check_measurable)(run)
    loading = time.monotonic() - started
    used = exposures(run, training_arguments(recipe))
    with locked(folder):
        measuring = _Measuring(run, options, folder / PAIRS, jobs, loading, say)
        measured = measuring.known(read_affinity(folder)) or (measuring.pairs() if pairwise else measuring.steps())
        effects = _effects_in(measured["effects"])
        tasks = list(recipe.tasks)
        found = best_groupings(tasks, counted_matrix(tasks, effects), models)
        best = chosen(found)
        content = {**measured, "models": models, **_proposal(run, used, found, best)}
        write_affinity(folder, content, recipe, best.groups, used)
    return Affinity(folder, content)


def _check(recipe: Recipe, models: int, options: Options, jobs: int) -> None:
    if len(recipe.tasks) < 2:
        raise CommandError(
            f"affinity: measures which tasks help which, and the recipe has one task, {next(iter(recipe.tasks))}. Add "
            f"a task."
        )
    for name, value in (("models", models), ("steps", options.steps), ("jobs", jobs)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise CommandError(f"--{name}: should be an integer of at least 1. Found {value!r}.")
    if options.budget is not None and not options.budget > 0:
        raise CommandError(f"--budget: should be a time above 0. Found {options.budget!r}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError("affinity: runs in one process. Call it without `accelerate launch`.")
    if options.method == PAIRWISE:
        check_jobs(jobs)


def _check_measurable(run: Run) -> None:
    check_measurable(run, build_meta_model(run))


@dataclass(frozen=True)
class _Measuring:
    """A measurement of the effects of a run's tasks on each other.

    Attributes:
        run: the run.
        options: the options.
        folder: the folder of the runs of pairs.
        jobs: the number of pairs that train at once.
        loading: the seconds in which the data were loaded.
        say: a function that shows a line to the user.
    """

    run: Run
    options: Options
    folder: Path
    jobs: int
    loading: float
    say: Callable[[str], None]

    @cached_property
    def key(self) -> str:
        """The content key of the recipe with its data."""
        return content_key(self.run.recipe, digests_of(self.run), encoder_digest(self.run.recipe, self.run))

    @property
    def left(self) -> float | None:
        """The seconds of the budget that the loading of the data has left; None without a budget."""
        return None if self.options.budget is None else self.options.budget - self.loading

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""
        return list(self.run.recipe.tasks)

    def known(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return an earlier measurement if it has the same recipe, data and options, or else an empty dict."""
        same = content.get("method") == self.options.method and content.get("options") == self.options.to_dict()
        return content if same and content["key"] == self.key else {}

    def steps(self) -> dict[str, Any]:
        """Measure the look-ahead affinity, and return the entries of `affinity.json`."""
        started, tasks = time.monotonic(), self.tasks
        plan = plan_steps(self.run, self.options.steps, self.left)
        if plan.steps < plan.wanted:
            self.say(f"note: {plan.wanted} steps do not fit into the budget: shortened to {plan.steps}")
        self.say(
            f"measuring the affinities of {len(tasks)} tasks: a joint training of {plan.steps} steps with "
            f"{plan.steps // plan.every} measurements, about {time_text(plan.seconds)}"
        )
        found = measure_steps(self.run, plan.steps, plan.every)
        effects = effects_of(tasks, found.affinity)
        return {
            **self._head(),
            "measured": {"steps": plan.steps, "every": plan.every, "wanted_steps": plan.wanted},
            "effects": _effects_entry(effects),
            "own": {task: effects[task][task].to_dict() for task in tasks},
            "cosines": _cosines_entry(tasks, found),
            "seconds": time.monotonic() - started,
        }

    def pairs(self) -> dict[str, Any]:
        """Train all pairs, and return the entries of `affinity.json`."""
        started, plan = time.monotonic(), self._plan_pairs()
        effects = measure_pairs(plan, self.folder, self.jobs, self.say)
        return {
            **self._head(),
            "measured": {"share": plan.share, "seeds": list(plan.seeds), "runs": len(plan.jobs)},
            "effects": _effects_entry(effects),
            "metrics": {name: self.run.tasks[name].kind.primary_score for name in self.tasks},
            "seconds": time.monotonic() - started,
        }

    def _head(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "method": self.options.method,
            "options": self.options.to_dict(),
            "tasks": self.tasks,
        }

    def _plan_pairs(self) -> PairPlan:
        """Plan the pairs with the share of an earlier call with the same options, or else with one that fits."""
        own, seeds = recipe_steps(self.run), self.options.seeds
        identity = {"key": self.key, "steps": self.options.steps, "budget": self.options.budget}
        share = _share_in(self.folder / _PLAN_NAME, identity)
        wanted = min(1.0, (self.options.steps or min(DEFAULT_STEPS, own)) / own)
        times = time_pairs(self.run, self.loading) if share is None and self.left is not None else None
        if share is None:
            share = wanted
            if times is not None and self.left is not None:
                full = plan_pairs(self.run, 1.0, seeds)
                least = min(wanted, FEWEST_STEPS / own)
                share = min(wanted, share_that_fits(times, full.rows, len(full.jobs), self.jobs * self.left, least))
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(self.folder / _PLAN_NAME, json_text({**identity, "share": share}) + "\n")
        if share < wanted:
            self.say(
                f"note: {wanted:.1%} of the recipe's training do not fit into the budget: shortened to {share:.1%}"
            )
        plan = plan_pairs(self.run, share, seeds)
        self._announce(plan, times)
        return plan

    def _announce(self, plan: PairPlan, times: PairTimes | None) -> None:
        """State the cost of the runs of a plan that are missing."""
        missing = [job for job in plan.jobs if not is_complete(self.folder, job, SPLIT)]
        cost = "none is missing"
        if missing:
            times = times or time_pairs(self.run, self.loading)
            seconds = times.seconds(sum(job.rows for job in missing), len(missing)) / self.jobs
            cost = f"{len(missing)} are missing, about {time_text(seconds)}"
        self.say(
            f"training {len(self.tasks)} tasks alone and in pairs with the seeds {', '.join(map(str, plan.seeds))}, "
            f"each for {plan.share:.1%} of the recipe's training: {len(plan.jobs)} runs, of which {cost}"
        )


def _share_in(path: Path, identity: Mapping[str, Any]) -> float | None:
    """Return the share in the plan of an earlier call with the same recipe and options, or None."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no earlier call, or one that was killed as it wrote the file
        return None
    same = isinstance(content, dict) and all(content.get(key) == value for key, value in identity.items())
    return float(content["share"]) if same and isinstance(content.get("share"), float | int) else None


def _effects_entry(effects: Effects) -> dict[str, dict[str, Any]]:
    return {
        helper: {task: effect.to_dict() for task, effect in own.items() if task != helper}
        for helper, own in effects.items()
    }


def _effects_in(entry: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Effect]]:
    return {
        helper: {task: Effect(effect["value"], effect["low"], effect["high"]) for task, effect in own.items()}
        for helper, own in entry.items()
    }


def _cosines_entry(tasks: Sequence[str], found: Measurements) -> list[dict[str, Any]]:
    """Return the mean cosine of the gradients of each two tasks with its interval."""
    entries = []
    for a, first in enumerate(tasks):
        for b in range(a + 1, len(tasks)):
            verdict = verdict_of([each["cosine"][a][b] for each in found.conflict.measurements])
            numbers = {"mean": verdict.mean, "low": verdict.low, "high": verdict.high}
            entries.append({"tasks": [first, tasks[b]], **numbers})
    return entries


def _proposal(run: Run, used: Mapping[str, Exposure], found: Sequence[Grouping], best: Grouping) -> dict[str, Any]:
    """Return the entries of `affinity.json` on groups."""
    tasks = list(run.recipe.tasks)
    adapted = set(run.recipe.adapted_tasks)
    joint = rows_of(tasks, used)
    groupings = [
        {
            "models": len(each.groups),
            "gain": each.gain / len(tasks),
            "answering_passes": sum(_passes(group, adapted) for group in each.groups),
            "training": sum(rows_of(group.tasks, used) for group in each.groups) / joint,
            "groups": [_group_entry(group) for group in each.groups],
            "chosen": each is best,
        }
        for each in found
    ]
    return {"groupings": groupings, "groups": [_group_entry(group) for group in best.groups]}


def _passes(group: Group, adapted: set[str]) -> int:
    """Return the encoder passes in which the model of a group answers the tasks that it serves."""
    served = set(group.serves)
    return len(served & adapted) + bool(served - adapted)


def _group_entry(group: Group) -> dict[str, list[str]]:
    return {"tasks": list(group.tasks), "serves": list(group.serves)}


def describe_proposal(content: Mapping[str, Any]) -> list[str]:
    """Return sentences on the effects beyond chance and on the proposed groups.

    Args:
        content: the content of `affinity.json`.
    """
    pairs = [
        (helper, task, effect["word"])
        for helper, own in content["effects"].items()
        for task, effect in own.items()
        if effect["word"] != UNCLEAR
    ]
    lines = [f"{helper} {word} {task}." for helper, task, word in pairs if word == HURTS]
    if not pairs:
        lines.append("No effect of a task on another is beyond chance, so no group is better than any other.")
    alone = [group["serves"][0] for group in content["groups"] if len(group["tasks"]) == 1]
    for group in content["groups"]:
        helpers = [task for task in group["tasks"] if task not in group["serves"]]
        helped = f" with the help of {', '.join(helpers)}" if helpers else ""
        if len(group["tasks"]) > 1:
            lines.append(f"One encoder for {', '.join(group['serves'])}{helped}.")
    if alone:
        lines.append(f"An encoder of its own for {' and for '.join(alone)}.")
    return lines


def _say_nothing(line: str) -> None:
    """Show nothing."""
