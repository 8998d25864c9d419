"""The effect of each task on each other task, measured by short trainings of pairs against each task alone.

The effect of i on j is the validation score of j in the pair (i, j) minus that of j alone, where both have read equally
many rows of j with equal settings. Standley et al. (2020) choose groups by such trainings; they are the honest measure,
at the cost of k · (k + 1) / 2 trainings per seed. The test split is not used.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.evaluation.predictions import Prediction, read_predictions
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.defaults import chosen_defaults
from mtl_nlp.run.prepare import Run
from mtl_nlp.run.reduction import Exposure, exposures, reduce_recipe, rows_of
from mtl_nlp.run_folder import PREDICTIONS_NAME
from mtl_nlp.training.defaults import default_loss_weights, head_learning_rate
from mtl_nlp.transfer.affinity_effects import Effect
from mtl_nlp.transfer.affinity_steps import SHORT_TRAINING
from mtl_nlp.transfer.content import content_key, digests_of, encoder_digest
from mtl_nlp.transfer.jobs import Job, JobRunner, folder_of
from mtl_nlp.transfer.planning import set_run_training
from mtl_nlp.transfer.resampling import RESAMPLES, SLOW_RESAMPLES, align_runs, draw_counts
from mtl_nlp.transfer.statistics import Spread, compare_sides, smallest_variance

MOST_TASKS = 8
"""The largest number of tasks of which all pairs are trained."""

SPLIT = "validation"
PAIR, ALONE = "pair", "alone"


@dataclass(frozen=True)
class PairPlan:
    """The short trainings of all tasks alone and of all pairs.

    Attributes:
        run: the run of all tasks.
        used: the use of each dataset in the training of the complete recipe.
        written: the recipe as plain data, with the settings that all short trainings share.
        share: the share of the recipe's training that a short training has.
        seeds: the seeds.
        jobs: the trainings, seed by seed.
    """

    run: Run
    used: Mapping[str, Exposure]
    written: Mapping[str, Any]
    share: float
    seeds: Sequence[int]
    jobs: list[Job]

    @property
    def rows(self) -> float:
        """The number of rows that all trainings read."""
        return sum(job.rows for job in self.jobs)


def check_pairs(run: Run) -> None:
    """Check that pairs of a run's tasks can be trained and scored.

    Args:
        run: the run.

    Raises:
        CommandError: if there are more than `MOST_TASKS` tasks.
        RecipeError: if a task has no validation rows.
    """
    tasks = list(run.recipe.tasks)
    if len(tasks) > MOST_TASKS:
        raise CommandError(
            f"--pairwise: trains all pairs of at most {MOST_TASKS} tasks. The recipe has {len(tasks)}. Leave out "
            f"--pairwise."
        )
    scored = run.splits.get(SPLIT, {}).values()
    if missing := [task for task in tasks if not any(task in rows.feeds for rows in scored)]:
        raise RecipeError(
            f"affinity: pairs are scored on validation, and no validation row has a label for {missing[0]!r}. Set "
            f"`validation_size` in a dataset."
        )


def plan_pairs(run: Run, share: float, seeds: Sequence[int]) -> PairPlan:
    """Plan a short training of each task alone and of each pair, for each seed.

    Args:
        run: the run of all tasks.
        share: the share of the recipe's training that a short training has: the passes over each dataset.
        seeds: the seeds.

    Raises:
        RecipeError: if a short training is not valid.
    """
    written = _shared_settings(run)
    used = exposures(run, training_arguments(run.recipe))
    digests, encoder = digests_of(run), encoder_digest(run.recipe, run)
    tasks = list(run.recipe.tasks)
    groups: list[tuple[str, ...]] = [*((task,) for task in tasks), *itertools.combinations(tasks, 2)]
    jobs = []
    for seed in seeds:
        for group in groups:
            rows = share * rows_of(group, used)
            data = reduce_recipe(written, group, used, alone=False, rows=rows)
            set_run_training(data, seed)
            expanded = Recipe.from_written({**data, "output_dir": "."}, allow_code=bool(run.recipe.own_code))
            key = content_key(expanded, digests, encoder)
            jobs.append(Job(ALONE if len(group) == 1 else PAIR, seed, group, data, key, rows))
    return PairPlan(run, used, written, share, seeds, [_named(job) for job in jobs])


def _named(job: Job) -> Job:
    """Return a run of a pair with its tasks in its name."""
    return job if len(job.tasks) == 1 else replace(job, serves=job.tasks)


def _shared_settings(run: Run) -> dict[str, Any]:
    """Return a recipe as plain data, with the defaults that several tasks decide, for trainings of fewer tasks.

    A task alone would have other defaults, and the difference would count as an effect of the pair. Test rows in files
    of their own are left out.
    """
    recipe = run.recipe
    data = copy.deepcopy(recipe.as_written())
    for key in ("output_dir", "baselines", "analysis"):
        data.pop(key, None)
    arguments = training_arguments(recipe)
    training = {key: value for key, value in data.get("training", {}).items() if key not in SHORT_TRAINING}
    training |= {key: value for key, value in SHORT_TRAINING.items() if value is not None}
    data["training"] = training
    if (rate := head_learning_rate(arguments, recipe.tasks)) is not None:
        training["head_learning_rate"] = rate
    if "plateau" in str(training.get("lr_scheduler_type")):
        training["lr_scheduler_type"] = "linear"
    data.get("mixture", {}).pop("headroom", None)
    loss = data.setdefault("loss", {})
    loss.pop("freeze_when_overfit", None)
    if recipe.loss.weighting == "static":
        loss["weights"] = {**default_loss_weights(run.tasks), **loss.get("weights", {})}
    by_key = {default.key: default.value for default in chosen_defaults(run, arguments)}
    for name, options in data["tasks"].items():
        if (pooling := by_key.get(f"tasks.{name}.pooling")) is not None:
            options["pooling"] = pooling
    for dataset in data["datasets"].values():
        for key in ("data_files", "splits"):
            if isinstance(dataset.get(key), dict):
                dataset[key] = {split: value for split, value in dataset[key].items() if split != "test"}
    return data


def measure_pairs(
    plan: PairPlan, output: Path, jobs: int, report: Callable[[str], None]
) -> dict[str, dict[str, Effect]]:
    """Train all runs of a plan that are not complete, and return the effect of each task on each other task.

    Args:
        plan: the plan.
        output: the folder of the runs. A second call trains only what is missing.
        jobs: the number of runs that train at once.
        report: a function that shows a line to the user.

    Raises:
        RunError: if a run failed.
        DataError: if a file of a run is damaged.
    """
    JobRunner(output, jobs, SPLIT, report).run(plan.jobs)
    tasks = {name: task for name, task in plan.run.tasks.items() if name in plan.run.recipe.tasks}
    found: dict[tuple[str, ...], list[dict[str, list[Prediction]]]] = {}
    for job in plan.jobs:
        found.setdefault(job.tasks, []).append(read_predictions(folder_of(output, job) / PREDICTIONS_NAME))
    return {
        helper: {
            task: _effect(
                [run[task] for run in found.get((helper, task)) or found[task, helper]],
                [run[task] for run in found[task,]],
                tasks[task],
            )
            for task in tasks
            if task != helper
        }
        for helper in tasks
    }


def _effect(pair: Sequence[list[Prediction]], alone: Sequence[list[Prediction]], task: Task) -> Effect:
    """Return the difference of a task's primary score between runs of a pair and runs of the task alone.

    The interval covers the chance of seeds and of rows; with one seed, that of rows alone.
    """
    if len(pair) > 1:
        difference = compare_sides(pair, alone, task)
        return Effect(difference.delta if np.isfinite(difference.delta) else None, difference.low, difference.high)
    aligned = align_runs(pair, alone, task)
    observed, texts = aligned.observed(), len(aligned.units)
    if not np.isfinite(observed).all():
        return Effect(None)
    delta = float(observed[0] - observed[1])
    resamples = RESAMPLES if aligned.is_fast else SLOW_RESAMPLES
    resampled = np.concatenate([aligned.resampled(counts) for counts in draw_counts(aligned.units, resamples, 0)])
    differences = resampled[np.isfinite(resampled).all(axis=1)] @ np.array([1.0, -1.0])
    if texts < 2 or 2 * len(differences) < resamples:
        return Effect(delta)
    variance = max(float(differences.var(ddof=1)), smallest_variance(texts))
    half_width = Spread(0.0, variance, float(texts - 1)).half_width()
    return Effect(delta, delta - half_width, delta + half_width)
