"""The check that the evaluations of a training have the metric that selects the best model."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.scans import count_missing
from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.scores_multitask import DEFAULT_SCORES, ChosenScores
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def check_best_metric(
    args: MultitaskTrainingArguments,
    sets: Mapping[str, Mapping[str, EncodedDataset]],
    tasks: Mapping[str, Task],
) -> None:
    """Check that the evaluations during training have the metric `metric_for_best_model`.

    Args:
        args: the training arguments.
        sets: name of the evaluation set -> name of the dataset -> split. A single set has the name ''.
        tasks: the tasks by name.

    Raises:
        ValueError: if there is no such metric; the message names the nearest metric.
    """
    if args.metric_for_best_model is None or args.eval_strategy == "no":
        return
    metric = args.metric_for_best_model.removeprefix("eval_")
    valid: list[str] = []
    without_labels: list[str] = []
    for set_name, datasets in sets.items():
        prefix = f"{set_name}_" if set_name else ""
        valid += [f"{prefix}mtl_score", f"{prefix}loss"]
        for name, task in tasks.items():
            scores = _score_names(task) if _has_labels(name, datasets) else ()
            if scores is None and metric.startswith(f"{prefix}{name}_"):
                return
            valid += [f"{prefix}{name}_{score}" for score in (*(scores or ()), *(("loss",) if scores != () else ()))]
            without_labels += [name] if scores == () and metric.startswith(f"{prefix}{name}_") else []
    if metric in valid:
        return
    reason = "should be a metric of the evaluations during training."
    if without_labels:
        reason = f"needs a validation split with labels of the task {without_labels[0]!r}, which has none."
    raise ValueError(
        f"`metric_for_best_model` {reason} Found {args.metric_for_best_model!r:.80}. {did_you_mean(metric, valid)}"
    )


def _has_labels(task: str, datasets: Mapping[str, EncodedDataset]) -> bool:
    """Return whether an evaluation scores a task: a row of a dataset has a label of the task."""
    columns = (encoded.references.get(task, ()) for encoded in datasets.values())
    return any(count_missing(column) < len(column) for column in columns)


def _score_names(task: Task) -> tuple[str, ...] | None:
    """Return the names of the scores of a task; None for a function, whose scores have any name."""
    metric = task.kind.metric
    if isinstance(metric, ChosenScores):
        return metric.names
    return DEFAULT_SCORES.get(metric) if isinstance(metric, str) else None
