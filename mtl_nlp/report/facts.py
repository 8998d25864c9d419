"""Facts about trainings, computed from the logs and recipes of runs: the evidence of the rules in `advice`."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mtl_nlp.messages import is_finite
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.report.material import RunFiles
from mtl_nlp.training.best import TOLERANCE


def curve(log: Sequence[Mapping[str, Any]], key: str, x: str = "epoch") -> list[tuple[float, float]]:
    """Return the points (x, value) of the log's entries that have a finite value under a key."""
    return [
        (float(entry.get(x, entry["step"])), float(entry[key]))
        for entry in log
        if isinstance(entry.get(key), int | float) and is_finite(float(entry[key]))
    ]


def loss_shares(runs: Sequence[RunFiles], tasks: Sequence[str]) -> dict[str, float]:
    """Return each task's share of the joint loss in the last half of the training, as a mean over runs.

    The share of a task is proportional to w_t · n_t / N · L_t, with the logged losses and weights; n_t / N, the share
    of the rows of the datasets that have the task, is 1 if the recipe has `loss.scale: per_task`. A run without losses
    of all tasks, or with unknown n_t / N, does not count.

    Returns:
        A dict from task to share; empty if no run has the losses.
    """
    of_runs = []
    for run in runs:
        losses = {}
        factors = _row_shares(run, tasks)
        for task in tasks:
            values = [value for _, value in curve(run.log, f"loss_{task}")]
            # Constant weights are not logged.
            weights = [value for _, value in curve(run.log, f"weight_{task}")] or [weight_of(run, task)]
            if values and task in factors:
                losses[task] = factors[task] * _mean_of_last_half(values) * _mean_of_last_half(weights)
        total = sum(losses.values())
        if len(losses) == len(tasks) and total > 0:
            of_runs.append({task: loss / total for task, loss in losses.items()})
    return {task: statistics.fmean(run[task] for run in of_runs) for task in tasks} if of_runs else {}


def _row_shares(run: RunFiles, tasks: Sequence[str]) -> dict[str, float]:
    """Return the factor n_t / N of each task in the joint loss; empty if the run has no recipe or no mixture."""
    mixture = run.training.get("mixture") or {}
    if run.recipe is None:
        return {}
    if run.recipe.loss.get("scale") == "per_task":
        return dict.fromkeys(tasks, 1.0)
    datasets = run.recipe.datasets
    return {
        task: sum(sampled["probability"] for name, sampled in mixture.items() if task in datasets[name].labels)
        for task in tasks
        if mixture and all(name in datasets for name in mixture)
    }


def _mean_of_last_half(values: Sequence[float]) -> float:
    return statistics.fmean(values[len(values) // 2 :])


def is_improving(run: RunFiles, task: str, metric: str) -> bool:
    """Return whether a task was still improving when the training ended.

    With at least three evaluations, the last score on validation must exceed all others by more than `TOLERANCE`.
    Otherwise the training loss of the last quarter must be at least 5 % below that of the quarter before. A frozen task
    was no longer trained.
    """
    if task in frozen_in(run):
        return False
    scores = [value for _, value in curve(run.log, f"eval_{task}_{metric}")]
    if len(scores) >= 3:
        return scores[-1] - max(scores[:-1]) > TOLERANCE
    losses = [value for _, value in curve(run.log, f"loss_{task}")]
    quarter = len(losses) // 4
    if quarter < 2:
        return False
    return statistics.fmean(losses[-quarter:]) < 0.95 * statistics.fmean(losses[-2 * quarter : -quarter])


def frozen_in(run: RunFiles) -> Collection[str]:
    """Return the tasks that were frozen in a run (`loss.freeze_when_overfit`)."""
    return run.training.get("frozen") or {}


class Peak(NamedTuple):
    """The best evaluation of a task on validation, and the evaluation of the kept model.

    Attributes:
        metric: the name of the score.
        value: the best score.
        step: the optimizer step of the best score.
        kept_value: the score of the kept model.
        kept_step: the optimizer step of the kept model.
    """

    metric: str
    value: float
    step: int
    kept_value: float
    kept_step: int


def early_peak(run: RunFiles, task: str) -> Peak | None:
    """Return the best evaluation of a task if the task was best long before the kept model and has fallen since.

    The rule is that of `mtl_nlp.training.best.has_fallen`, whose result is in `results.json`. The tolerance is applied
    again, since an earlier release had none. A frozen task was not trained on after it fell.
    """
    best = (run.training.get("best") or {}).get(task) or {}
    if not best.get("fell") or best.get("kept_value") is None or best.get("kept_step") is None:
        return None
    if task in frozen_in(run) or best["value"] - best["kept_value"] <= TOLERANCE:
        return None
    return Peak(best["score"], best["value"], best["step"], best["kept_value"], best["kept_step"])


def weight_of(run: RunFiles, task: str) -> float:
    """Return the static weight of a task's loss in a run; the mean of a weight that moves during training.

    An earlier release wrote no weights, and the recipe of its run has them.
    """
    given = {} if run.recipe is None else run.recipe.loss.get("weights") or {}
    value = (run.training.get("weights") or given).get(task, 1.0)
    if isinstance(value, list) and value and all(isinstance(end, int | float) for end in value):
        return statistics.fmean(value)
    return float(value) if isinstance(value, int | float) else 1.0  # a variable of the environment is a text


def has_static_weights(recipe: SavedRecipe | None) -> bool:
    """Return whether the recipe itself gives the weights of the losses, and no method chooses them."""
    return recipe is None or recipe.loss.get("weighting", "static") == "static"


def adapted_tasks(recipe: SavedRecipe | None) -> list[str]:
    """Return the tasks that have an adapter of their own by the recipe."""
    if recipe is None or recipe.adapters is None:
        return []
    of = recipe.adapters.get("tasks", "all")
    return [task for task in recipe.tasks if not isinstance(of, list) or task in of]  # `all`, null or a variable


def learning_rates(recipe: SavedRecipe) -> dict[str, Any]:
    """Return the learning rates among the training arguments of the recipe."""
    return {key: value for key, value in recipe.training.items() if key.endswith("learning_rate")}


def rows_of(runs: Sequence[RunFiles], task: str) -> tuple[int, int] | None:
    """Return the number of training rows in the datasets of a task, and in the largest dataset; None if unknown."""
    for run in runs:
        rows = {name: sampled["rows"] for name, sampled in (run.training.get("mixture") or {}).items()}
        if run.recipe is None or not rows:
            continue
        of_task = [
            rows[name] for name, dataset in run.recipe.datasets.items() if task in dataset.labels and name in rows
        ]
        if of_task:
            return sum(of_task), max(rows.values())
    return None


def strongest_conflict(runs: Sequence[RunFiles], task: str) -> tuple[str, float, float] | None:
    """Return the task whose gradients conflicted most with those of a task in training.

    Args:
        runs: the runs of a side.
        task: the task.

    Returns:
        The other task with the lowest cosine, the mean of the cosine over the runs, and of the share of measurements
        with a negative cosine; None if no mean cosine is negative, or no run has measurements.
    """
    cosines: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for found in (run.conflict for run in runs):
        if found is None or task not in found.tasks:
            continue
        place = found.tasks.index(task)
        for other, cosine, share in zip(
            found.tasks, found.mean.cosine[place], found.mean.conflicting[place], strict=True
        ):
            if other != task and cosine is not None and share is not None:
                cosines.setdefault(other, []).append(cosine)
                shares.setdefault(other, []).append(share)
    means = {other: statistics.fmean(values) for other, values in cosines.items()}
    worst = min(means, key=means.__getitem__, default=None)
    if worst is None or means[worst] >= 0:
        return None
    return worst, means[worst], statistics.fmean(shares[worst])
