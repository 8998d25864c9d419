"""The best validation score of each task during training, and its comparison with that of the kept model."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import TrainerState, TrainingArguments

from mtl_nlp.messages import is_finite
from mtl_nlp.modeling.tasks_multitask import Task

TOLERANCE = 0.005
"""The largest difference of scores that counts as noise in any case: half a point of accuracy or F1."""

_EARLY = 0.75
"""The share of the steps up to the kept model within which a best score counts as early."""


def best_scores(
    history: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task], kept_step: int
) -> dict[str, dict[str, Any]]:
    """Return the best validation score of each task, from the evaluations during training.

    Args:
        history: the entries of the training log, see `TrainerState.log_history`.
        tasks: the tasks by name.
        kept_step: the optimizer step of the model that was kept.

    Returns:
        For each task with an evaluation: `score` (the name of its primary score), `value` and `step` of the first best
        evaluation, `kept_value` and `kept_step` (of the evaluation of the kept model; None without such an evaluation)
        and `fell`, see `has_fallen`.
    """
    found = {}
    for name, task in tasks.items():
        values = validation_scores(history, name, task)
        if not values:
            continue
        step = max(values, key=lambda each: (values[each], -each))
        found[name] = {
            "score": task.kind.primary_score,
            "value": values[step],
            "step": step,
            "kept_value": values.get(kept_step),
            "kept_step": kept_step if kept_step in values else None,
            "fell": has_fallen(values, step, kept_step),
        }
    return found


def validation_scores(history: Sequence[Mapping[str, Any]], name: str, task: Task) -> dict[int, float]:
    """Return the primary score of a task in each evaluation that has one, by optimizer step.

    Args:
        history: the entries of the training log.
        name: the name of the task.
        task: the task.
    """
    key = f"eval_{name}_{task.kind.primary_score}"
    return {entry["step"]: entry[key] for entry in history if entry.get(key) is not None and is_finite(entry[key])}


def has_fallen(values: Mapping[int, float], best_step: int, kept_step: int) -> bool:
    """Return whether a task was best long before the kept model and has fallen since.

    Both must be true. The best evaluation lies within the first 75 % of the steps up to the kept model. And it exceeds
    the evaluation of the kept model by more than `TOLERANCE` and than neighbouring evaluations up to the kept model
    differ: the median of these differences is the noise that the evaluations show by themselves.

    Args:
        values: the task's score at each evaluated step.
        best_step: the step of the best evaluation.
        kept_step: the step of the kept model.
    """
    if kept_step not in values or best_step > _EARLY * kept_step:
        return False
    until = [values[step] for step in sorted(values) if step <= kept_step]
    changes = [abs(later - earlier) for earlier, later in itertools.pairwise(until)]
    return values[best_step] - values[kept_step] > max(statistics.median(changes), TOLERANCE)


def describe_kept(state: TrainerState, args: TrainingArguments) -> list[str]:
    """Return a sentence about the step whose model is kept, if the best one is.

    Args:
        state: the state of the trainer after the training.
        args: the training arguments.
    """
    if not args.load_best_model_at_end or state.best_model_checkpoint is None or state.best_metric is None:
        return []
    return [
        f"the model of step {state.best_global_step} of {state.global_step} is kept, the best by "
        f"{args.metric_for_best_model} ({state.best_metric:.4g})"
    ]


def describe_falls(best: Mapping[str, Mapping[str, Any]], frozen: Collection[str] = ()) -> list[str]:
    """Return a sentence for each task that has fallen.

    Args:
        best: the result of `best_scores`.
        frozen: the tasks that were frozen since they had fallen, which have a sentence of their own.
    """
    return [
        f"{task} was best at step {found['step']} ({found['value']:.3f} on validation) and fell to "
        f"{found['kept_value']:.3f} at the kept step {found['kept_step']}: interference or overfitting. A training of "
        f"{task} alone shows which: mtl-nlp compare"
        for task, found in best.items()
        if found["fell"] and task not in frozen
    ]
