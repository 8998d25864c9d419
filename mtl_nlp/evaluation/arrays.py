"""Predictions and labels as arrays, in the form in which Trainer passes them to `compute_metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import EvalPrediction
from transformers.trainer_utils import denumpify_detensorize

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.modeling.tasks_multitask import Task

Values = Mapping[str, Mapping[int, np.ndarray]]
"""Task -> index of the source row -> the logits of the text, or the values made from the logits."""

ComputeMetrics = (
    Callable[[EvalPrediction], dict[str, float]] | Mapping[str, Callable[[EvalPrediction], dict[str, float]]]
)
"""A function of the predictions and labels of all tasks, or a function for each of some tasks."""

PADDING = -100
"""Trainer's number for positions without a value, in predictions and in labels that are indices."""


_SPEED = ("runtime", "samples_per_second", "steps_per_second")
"""The names that Trainer gives to the speed of an evaluation."""


def stacked(values: Sequence[np.ndarray | None], missing: float) -> np.ndarray | None:
    """Return values of different shapes in one array, shape (values, *largest shape); None if all values are None.

    Args:
        values: arrays with the same number of axes; None for no value.
        missing: the number at positions without a value.
    """
    present = [value for value in values if value is not None]
    if not present:
        return None
    shape = np.max([value.shape for value in present], axis=0).astype(int)
    result = np.full((len(values), *shape), missing, dtype=present[0].dtype)
    for number, value in enumerate(values):
        if value is not None:
            index: tuple[int | slice, ...] = (number, *map(slice, value.shape))
            result[index] = value
    return result


def arrays_of(
    values: Mapping[str, Values],
    datasets: Mapping[str, EncodedDataset],
    tasks: Mapping[str, Task],
    *,
    all_rows: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """Return the predictions and the labels of each task as arrays, over the rows of all datasets in their order.

    Args:
        values: dataset -> task -> row -> logits.
        datasets: the encoded split of each dataset.
        tasks: the tasks by name.
        all_rows: whether to return all rows; otherwise, each task has the rows with its label, and a task without such
            rows is left out.

    Returns:
        The logits of each task: shape (rows, words, classes) for words, with -100 after the last word of a text, and
        (rows, classes) for texts. And the labels: class indices with -100 for no label, shape (rows, words) or (rows,);
        or numbers with NaN for no label; None for a task without any label.
    """
    predictions, label_ids = {}, {}
    for name, task in tasks.items():
        logits: list[np.ndarray | None] = []
        targets: list[np.ndarray | None] = []
        for dataset, encoded in datasets.items():
            given = encoded.references[name][:] if name in encoded.references else [None] * encoded.num_rows
            for row, label in enumerate(given):
                if all_rows or label is not None:
                    logits.append(values[dataset].get(name, {}).get(row))
                    targets.append(None if label is None else _target(task, label))
        found = stacked(logits, PADDING)
        if found is not None:
            predictions[name] = found
            label_ids[name] = stacked(targets, np.nan if _is_number(task) else PADDING)
    return predictions, label_ids


def own_metrics(
    compute: ComputeMetrics, predictions: Mapping[str, np.ndarray], label_ids: Mapping[str, np.ndarray | None]
) -> dict[str, float]:
    """Return the metrics of the user's function, or of the user's functions by task as `<task>_<metric>`.

    Args:
        compute: the function of an `EvalPrediction` whose parts are dicts by task, or functions of the predictions and
            labels of single tasks.
        predictions: the predictions of each task, see `arrays_of`.
        label_ids: the labels of each task. The function of a task without labels is not called.
    """
    if not isinstance(compute, Mapping):
        return denumpify_detensorize(compute(EvalPrediction(dict(predictions), dict(label_ids))))
    return {
        f"{task}_{name}": value
        for task, function in compute.items()
        if label_ids.get(task) is not None
        for name, value in denumpify_detensorize(function(EvalPrediction(predictions[task], label_ids[task]))).items()
    }


def with_prefix(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return metrics whose names begin with a prefix, which is added to names without it, as in Trainer."""
    start = f"{prefix}_"
    return {f"{start}{name.removeprefix(start)}": value for name, value in metrics.items()}


def check_names(own: Mapping[str, float], metrics: Mapping[str, float], prefix: str) -> None:
    """Check that no metric of the user's function replaces another metric of an evaluation.

    Args:
        own: the metrics of the user's function.
        metrics: the scores and losses.
        prefix: the prefix of all names.

    Raises:
        ValueError: if a name is that of a score, a loss or a speed.
    """
    taken = own.keys() & {*metrics, *(f"{prefix}_{name}" for name in _SPEED)}
    if taken:
        raise ValueError(
            f"`compute_metrics` should return names that no score, loss or speed of the evaluation has. Found "
            f"{', '.join(sorted(taken))}. Rename the metric."
        )


def _is_number(task: Task) -> bool:
    return task.kind.target_feature.dtype.startswith("float")


def _target(task: Task, label: Any) -> np.ndarray:
    return np.asarray(task.kind.target_of(label), dtype=np.float32 if _is_number(task) else np.int64)
