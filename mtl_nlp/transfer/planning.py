"""The plan of a comparison: the runs of every side and seed, and all that differs between the sides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.plain_yaml import as_yaml
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_meta_model, check_splits
from mtl_nlp.run.defaults import chosen_defaults
from mtl_nlp.run.gradients import check_gradients
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.run.reduction import Exposure, encoder_passes_of, exposures, fit_steps, reduce_recipe, rows_of
from mtl_nlp.transfer.content import content_key, digests_of, encoder_digest
from mtl_nlp.transfer.differing import describe_differences, name_of_model
from mtl_nlp.transfer.jobs import Job
from mtl_nlp.transfer.sides import SINGLE, RecipeSide

Match = Literal["passes", "compute"]
"""The budget of the single runs: the joint run's passes over each task's rows, or its total of encoder passes."""

CURVE_SHARES = (0.25, 0.5)
"""The shares of the training rows at which a learning curve is measured, besides all rows."""

_SAVES_PER_RUN = 4

_NOT_FOR_RUNS = ("data_seed", "save_only_model", "push_to_hub", "resume_from_checkpoint")
"""Training arguments of a recipe that its runs in a comparison do not use, with all that start with `hub_`."""


@dataclass(frozen=True)
class PlannedSide:
    """A side of a comparison that is trained.

    Attributes:
        name: the name of the side.
        title: a description for the reader.
        jobs: seed -> the runs of the side; together they have all tasks.
    """

    name: str
    title: str
    jobs: Mapping[int, list[Job]]


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison.

    Attributes:
        sides: the sides, the last of which has a run for each task alone.
        curves: the share of the training rows -> the sides trained on it.
        split: the split to compare on.
        first: the first side's recipe with its data.
        match: the budget of the runs of each task alone; None if the section `baselines` sets the length of a training.
        differs: sentences about the settings in which the sides differ.
        warnings: sentences about what makes the comparison unfair.
        notes: other sentences for the reader.
    """

    sides: list[PlannedSide]
    curves: dict[float, list[PlannedSide]]
    split: str
    first: Run
    match: Match | None
    differs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def jobs(self) -> Iterator[Job]:
        """Yield all runs, seed by seed, so that an interrupted comparison has complete seeds."""
        every = [*self.sides, *(side for sides in self.curves.values() for side in sides)]
        for seed in every[0].jobs:
            for side in every:
                yield from side.jobs[seed]


class _Prepared:
    """A recipe with its data, hashes and the use of its datasets."""

    def __init__(self, side: RecipeSide) -> None:
        self.side = side
        self.recipe = side.recipe
        arguments = training_arguments(side.recipe)  # before the data are loaded
        self.run: Run = prepare(side.recipe)
        self.run.try_model()
        check_splits(self.run, arguments)
        if arguments.conflict_every is not None or side.recipe.loss.gradients is not None:
            check_gradients(build_meta_model(self.run), side.recipe, arguments)
        self.used: dict[str, Exposure] = exposures(self.run, arguments)
        self.defaults = [default.key for default in chosen_defaults(self.run, arguments)]
        self.digests = digests_of(self.run)
        self.encoder = encoder_digest(side.recipe, self.run)
        self.own = [
            None if recipe is None else _Prepared(RecipeSide(side.name, side.title, recipe, [list(recipe.tasks)]))
            for recipe in side.recipes or [None] * len(side.groups)
        ]

    def jobs(self, seed: int, share: float) -> list[Job]:
        """Return the runs of the side with a seed: one per group."""
        found = []
        for tasks, own in zip(self.side.groups, self.own, strict=True):
            if own is None:
                found.append(self.job(tasks, seed, self.side.name, alone=False, rows=None, share=share))
            else:
                job = own.job(list(own.recipe.tasks), seed, self.side.name, alone=False, rows=None, share=share)
                found.append(replace(job, serves=tuple(tasks)))
        return found

    def job(self, tasks: Sequence[str], seed: int, side: str, *, alone: bool, rows: float | None, share: float) -> Job:
        """Return the run of some tasks with a seed."""
        written = self.recipe.as_written()
        written.pop("output_dir")
        if alone or list(tasks) != list(self.recipe.tasks):
            written = reduce_recipe(written, tasks, self.used, alone=alone, rows=rows)
        set_run_training(written, seed)
        if share < 1.0:
            _limit_rows(written, self.run, share)
        expanded = Recipe.from_written({**written, "output_dir": "."}, allow_code=bool(self.recipe.own_code))
        training_arguments(expanded)
        key = content_key(expanded, self.digests, self.encoder, share)
        read = rows_of(tasks, self.used)
        if alone:  # the section `baselines` can change the number of epochs
            rows_once = sum(self.used[name].count(tasks) for name in written["datasets"])
            read = rows_once * float(expanded.training["num_train_epochs"])
        return Job(side, seed, tuple(tasks), written, key, read * share, share)


def plan_comparison(
    sides: Sequence[RecipeSide], seeds: Sequence[int], match: Match = "passes", *, learning_curve: bool = False
) -> Plan:
    """Load the data of all sides, and plan their runs and those of each task alone.

    Each task alone is trained by the first side's recipe without adapters.

    Args:
        sides: the recipes and groups.
        seeds: the seeds.
        match: the budget of the runs of each task alone.
        learning_curve: whether all sides are also trained on a quarter and on half of the training rows.

    Raises:
        RecipeError: if the recipes have different tasks or test rows, or a task has labels in neither `test` nor
            `validation`.
        DataError: if data cannot be loaded.
    """
    _check_same_tasks(sides)
    prepared = [_Prepared(side) for side in sides]
    first = prepared[0]
    split, notes = _common_split(first.run)
    _check_same_rows(prepared, split)
    rows = _rows_alone(first, match)

    def planned(share: float) -> list[PlannedSide]:
        found = []
        for each in prepared:
            jobs = {seed: each.jobs(seed, share) for seed in seeds}
            found.append(PlannedSide(each.side.name, each.side.title, jobs))
        alone = {
            seed: [
                first.job([task], seed, SINGLE, alone=True, rows=rows.get(task), share=share)
                for task in first.recipe.tasks
            ]
            for seed in seeds
        }
        return [*found, PlannedSide(SINGLE, "each task alone", alone)]

    every = planned(1.0)
    curves = {share: planned(share) for share in CURVE_SHARES} if learning_curve else {}
    differs = [*_different_rows(prepared), *_differences(every)]
    warnings = _warnings(first.recipe, sides)
    notes += [
        f"the passes of {each.side.name} over each dataset follow its validation scores (mixture.headroom); those of "
        f"single-task runs do not"
        for each in prepared
        if each.run.headroom
    ]
    notes += [
        f"{each.side.name} has defaults for several tasks ({', '.join(each.defaults)}; values: mtl-nlp plan). A task "
        f"alone has the settings of the stock classes"
        for each in prepared
        if each.defaults
    ]
    return Plan(every, curves, split, first.run, _matched(first.recipe, match), differs, warnings, notes)


def _matched(recipe: Recipe, match: Match) -> Match | None:
    """Return the budget of the single runs, or None if `baselines` gives them a different number of steps or epochs."""
    own = [recipe.baselines.training, *(section.training for section in recipe.baselines.tasks.values())]
    return None if any({"num_train_epochs", "max_steps"} & training.keys() for training in own) else match


def _check_same_tasks(sides: Sequence[RecipeSide]) -> None:
    first = sides[0]
    for side in sides[1:]:
        for name in {**first.recipe.tasks, **side.recipe.tasks}:
            here, there = first.recipe.tasks.get(name), side.recipe.tasks.get(name)
            if here != there:
                raise RecipeError(
                    f"compare: {first.name} and {side.name} should have the same tasks. {name!r} is {_shown(here)} in "
                    f"{first.name} and {_shown(there)} in {side.name}."
                )


def _shown(options: Mapping[str, Any] | None) -> str:
    return "missing" if options is None else ", ".join(f"{key} {as_yaml(value)}" for key, value in options.items())


def _common_split(run: Run) -> tuple[str, list[str]]:
    """Return the first of `test` and `validation` that has labels for all tasks, and a note if that is validation."""
    missing: dict[str, list[str]] = {}
    for split in ("test", "validation"):
        feeders = run.splits.get(split, {}).values()
        missing[split] = [task for task in run.recipe.tasks if not any(task in rows.feeds for rows in feeders)]
        if not missing[split]:
            lacking = f"test has no labels for {', '.join(missing['test'])}"
            note = f"all tasks are compared on validation, since {lacking}; scores on validation flatter"
            return split, [note] if split == "validation" else []
    both = [task for task in missing["test"] if task in missing["validation"]]
    where = (
        f"{both[0]} has no labels in either"
        if both
        else f"test lacks {missing['test'][0]}, validation lacks " + (missing["validation"][0])
    )
    raise RecipeError(
        f"compare: one of the splits test and validation should have labels for all tasks: {where}. Add a split to a "
        f"dataset, or leave out the task."
    )


def _check_same_rows(prepared: Sequence[_Prepared], split: str) -> None:
    """Check that all recipes score each task on the same rows."""
    first = prepared[0]
    own = [(each, tasks) for side in prepared for each, tasks in zip(side.own, side.side.groups, strict=True) if each]
    for other, tasks in [*((other, list(first.recipe.tasks)) for other in prepared[1:]), *own]:
        for task in tasks:
            if _rows_scored(first, task, split) != _rows_scored(other, task, split):
                raise RecipeError(
                    f"compare: {first.side.name} and {other.side.name} should have the same {split} rows for {task!r}. "
                    f"The texts or the labels differ. Give both recipes the same {split} files."
                )


def _rows_scored(prepared: _Prepared, task: str, split: str) -> list[tuple[str, str, str]]:
    return [
        (name, digests[split], digests[f"{split}/{task}"])
        for name, digests in prepared.digests.items()
        if f"{split}/{task}" in digests
    ]


def _rows_alone(first: _Prepared, match: Match) -> dict[str, float]:
    """Return the rows that each task alone reads, if the budget is the joint run's total of encoder passes."""
    if match == "passes":
        return {}
    own = {task: rows_of([task], first.used) for task in first.recipe.tasks}
    factor = encoder_passes_of(first.used, first.recipe.adapted_tasks) / sum(own.values())
    return {task: rows * factor for task, rows in own.items()}


def set_run_training(data: dict[str, Any], seed: int) -> None:
    """Set the seed, and leave checkpoints from which a run that was killed resumes; nothing is pushed."""
    given = data.get("training", {})
    training = {k: v for k, v in given.items() if k not in _NOT_FOR_RUNS and not k.startswith("hub_")}
    training |= {"seed": seed, "disable_tqdm": True}
    if training.get("save_strategy", "steps") in {"no", False}:
        training |= {"save_strategy": "steps", "save_steps": 1 / _SAVES_PER_RUN, "save_total_limit": 1}
    data["training"] = training
    for section in ("baselines", "search"):
        data.pop(section, None)


def _limit_rows(data: dict[str, Any], run: Run, share: float) -> None:
    """Limit the training rows of every dataset to a share of them, with as many passes over these rows."""
    fit_steps(data["training"], share)
    for name, dataset in data["datasets"].items():
        rows = math.ceil(run.train[name].num_rows * share)
        dataset["max_rows"] = {**dataset.get("max_rows", {}), "train": rows}


def _warnings(recipe: Recipe, sides: Sequence[RecipeSide]) -> list[str]:
    own = recipe.baselines.tasks
    is_tuned = "learning_rate" in recipe.baselines.training
    untuned = [
        task for task in recipe.tasks if not is_tuned and (task not in own or "learning_rate" not in own[task].training)
    ]
    if not untuned:
        return []
    who = "each task" if len(untuned) == len(recipe.tasks) else ", ".join(untuned)
    return [
        f"{who} alone was trained with the learning rates of {sides[0].title}, which were not chosen for it. Rates "
        f"move scores by more than most ways of sharing do. Choose rates on validation, and set "
        f"baselines.training.learning_rate"
    ]


def _different_rows(prepared: Sequence[_Prepared]) -> Iterator[str]:
    """Yield a sentence for each dataset with other training or validation rows than the first recipe has."""
    first, *others = prepared
    for other in others:
        for split, rows in (("train", "training"), ("validation", "validation")):
            for name in first.digests:
                theirs = other.digests.get(name)
                if theirs is None and split == "train":
                    yield f"{other.side.name} differs from {first.side.name}: not trained on {name}"
                elif theirs is not None and _of_split(theirs, split) != _of_split(first.digests[name], split):
                    yield f"{other.side.name} differs from {first.side.name}: other {rows} rows of {name}"


def _of_split(digests: Mapping[str, str], split: str) -> dict[str, str]:
    return {key: digest for key, digest in digests.items() if key.partition("/")[0] == split}


def _differences(sides: Sequence[PlannedSide]) -> list[str]:
    """Return a sentence for each run whose settings differ from those of the first run."""
    first_seeds = [(side, next(iter(side.jobs.values()))) for side in sides]
    return describe_differences(
        [(name_of_model(side.name, job.served, len(jobs)), job.recipe) for side, jobs in first_seeds for job in jobs]
    )
