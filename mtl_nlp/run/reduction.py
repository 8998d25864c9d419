"""The reduction of a recipe to some of its tasks, trained as the complete recipe trains them.

A comparison or a search trains each task alone, or groups of tasks, on the same rows, with the same number of passes
over these rows and the same schedule as the joint run.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.cutting import task_to_stratify_by
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.modeling.layers_multitask import is_encoder_part
from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.recipe.variables import expand
from mtl_nlp.run.build import plan_batches
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments

_IN_STEPS = ("max_steps", "warmup_steps", "eval_steps", "save_steps", "logging_steps")
"""Training arguments that count optimizer steps if they are at least 1, and are shares of the training below 1."""

_OF_GRADIENTS = ("gradients", "gradients_kwargs", "every")
"""Keys of the section `loss` that need several tasks."""


_LOSS_OF_ONE_TASK = ("freeze_when_overfit", "on_nonfinite")
"""Keys of the section `loss` that a training of one task keeps."""


@dataclass(frozen=True)
class Exposure:
    """The use of a dataset in a training.

    Attributes:
        passes: number of passes over the rows of the dataset in the complete training.
        labelled: task -> whether each row has a label for the task, shape (rows,).
    """

    passes: float
    labelled: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        """Number of rows of the dataset."""
        return len(next(iter(self.labelled.values())))

    def count(self, tasks: Collection[str]) -> int:
        """Return the number of rows with a label for any of the tasks."""
        masks = [self.labelled[task] for task in tasks if task in self.labelled]
        return int(np.logical_or.reduce(masks).sum()) if masks else 0


def exposures(run: Run, arguments: MultitaskTrainingArguments) -> dict[str, Exposure]:
    """Return the use of each dataset in the training of a run.

    A row is a window, as in the mixture. For a stream, every row counts as labelled for all tasks of the stream.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if the mixture or its batches cannot be built.
    """
    sampler = plan_batches(run, arguments)
    mixture = sampler.mixture
    drawn = len(mixture) * sampler.total_batches / len(sampler)
    return {
        name: Exposure(float(probability) * drawn / encoded.num_windows, labelled_rows(encoded))
        for (name, encoded), probability in zip(mixture.datasets.items(), mixture.mean_probabilities, strict=True)
    }


def labelled_rows(encoded: EncodedDataset | EncodedStream) -> dict[str, np.ndarray]:
    """Return for each task of a dataset whether each row has a label, shape (rows,); every row of a stream has."""
    if isinstance(encoded, EncodedStream):
        return {task: np.ones(encoded.num_windows, dtype=bool) for task in encoded.feeds}
    columns = encoded.windows.data
    return {task: columns.column(LABEL_PREFIX + task).is_valid().to_numpy() for task in encoded.feeds}


def rows_of(tasks: Collection[str], used: Mapping[str, Exposure]) -> float:
    """Return the number of rows that a training on some tasks reads in all of its passes."""
    return sum(exposure.passes * exposure.count(tasks) for exposure in used.values())


def encoder_passes_of(used: Mapping[str, Exposure], adapted: Collection[str]) -> float:
    """Return the number of rows that the encoder reads in a training.

    A row that is labelled for tasks with adapters is read once per adapter, and once for all tasks without an adapter.

    Args:
        used: the use of each dataset.
        adapted: the tasks with an adapter of their own.
    """
    tasks = {task for exposure in used.values() for task in exposure.labelled}
    groups = [[task] for task in tasks & set(adapted)] + [sorted(tasks - set(adapted))]
    return sum(rows_of(group, used) for group in groups)


def reduce_recipe(
    recipe: Mapping[str, Any],
    tasks: Collection[str],
    used: Mapping[str, Exposure],
    *,
    alone: bool,
    rows: float | None = None,
) -> dict[str, Any]:
    """Return a recipe for some of the tasks of a recipe, with the training that the recipe gives these tasks.

    Every dataset is read as many times as in the training of the recipe. The intervals and the warmup that count steps
    keep their share of the training. The datasets are mixed with constant probabilities, also where the recipe changes
    the temperature during training. Groups keep `mixture.headroom`, which changes the passes over their datasets.

    Args:
        recipe: the recipe as plain data, with variables such as `${DATA}` as they stand.
        tasks: the tasks to keep.
        used: the use of each dataset in the training of the recipe, see `exposures`.
        alone: whether the recipe trains the tasks without sharing: adapters, teachers, the balance of losses and a
            frozen encoder with adapters are then left out, and the section `baselines` replaces training arguments.
        rows: the number of rows to read in all passes, instead of as many as the training of the recipe reads.
    """
    data = copy.deepcopy(dict(recipe))
    values = expand(recipe)
    kept = [name for name in data["tasks"] if name in tasks]
    _keep_rows_set_aside(data)
    data["tasks"] = {name: data["tasks"][name] for name in kept}
    data["datasets"] = {
        name: {
            **dataset,
            **{key: _of_tasks(dataset[key], kept) for key in ("labels", "label_map") if key in dataset},
        }
        for name, dataset in data["datasets"].items()
        if set(kept) & dataset["labels"].keys()
    }
    _reduce_sharing(data, kept, alone=alone)
    _reduce_teachers(data, kept, alone=alone)
    total = _set_passes(data, kept, used, rows, alone=alone)
    joint = sum(exposure.passes * exposure.rows for exposure in used.values())
    fit_steps(data["training"], total / joint)
    _fit_metric(data["training"], values, kept)
    baselines = data.pop("baselines", {})
    data.pop("search", None)
    if alone:
        own = [baselines.get("tasks", {}).get(task, {}).get("training", {}) for task in kept]
        for each in [baselines.get("training", {}), *own]:
            data["training"] |= each
    return data


def _keep_rows_set_aside(data: dict[str, Any]) -> None:
    """Name the column by which rows are set aside, since the task that decides the column may not be kept.

    Args:
        data: the complete recipe, which is changed in place.
    """
    tasks = {name: task_from_dict({**options, "name": name}) for name, options in expand(data["tasks"]).items()}
    for dataset in data["datasets"].values():
        if {"validation_size", "test_size"} & dataset.keys() and dataset.get("stratify_by_column") is None:
            task = task_to_stratify_by(dataset["labels"], tasks)
            dataset["stratify_by_column"] = False if task is None else dataset["labels"][task]


def _reduce_sharing(data: dict[str, Any], kept: list[str], *, alone: bool) -> None:
    """Remove the parts of the loss, the adapters and the frozen parts that belong to other tasks."""
    adapters = data.pop("adapters", None)
    frozen = [part for part in data.pop("freeze", []) if part in kept or _is_of_encoder(part)]
    loss = data.pop("loss", {})
    if len(kept) < 2:  # a task alone has no gradients to combine or to compare
        data.pop("analysis", None)
        loss = {key: value for key, value in loss.items() if key not in _OF_GRADIENTS}
    training = data.setdefault("training", {})
    kept_loss = {key: loss[key] for key in _LOSS_OF_ONE_TASK if key in loss}
    if alone and kept_loss:
        data["loss"] = kept_loss
    if not alone:
        weights = {task: weight for task, weight in loss.get("weights", {}).items() if task in kept}
        data["loss"] = {**loss, "weights": weights}
        if len(kept) == 1:  # most loss weightings compare tasks
            data["loss"] = {key: value for key, value in data["loss"].items() if not key.startswith("weighting")}
        if adapters is not None and adapters.get("tasks", "all") != "all":
            adapters = {**adapters, "tasks": [task for task in adapters["tasks"] if task in kept]}
    is_empty = adapters is not None and adapters.get("tasks", "all") == [] and not adapters.get("shared", False)
    if adapters is not None and (alone or is_empty):
        training.pop("adapter_learning_rate", None)
        frozen = [part for part in frozen if not _is_of_encoder(part)]
        adapters = None
    if adapters is not None:
        data["adapters"] = adapters
    if frozen:
        data["freeze"] = frozen


def _reduce_teachers(data: dict[str, Any], kept: list[str], *, alone: bool) -> None:
    """Remove the teachers of other tasks, and all teachers of a task alone: they are such runs themselves."""
    distill = data.pop("distill", None)
    if distill is None or alone:
        return
    teachers = distill["teachers"]
    teachers = teachers if isinstance(teachers, str) else _of_tasks(teachers, kept)
    if teachers:
        data["distill"] = {**distill, "teachers": teachers}


def _is_of_encoder(part: str) -> bool:
    return part == "encoder" or is_encoder_part(part)


def _of_tasks(values: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """Return the values of the kept tasks, from a dict by task."""
    return {task: value for task, value in values.items() if task in kept}


def _set_passes(
    data: dict[str, Any], kept: list[str], used: Mapping[str, Exposure], rows: float | None, *, alone: bool
) -> float:
    """Set the length of the training and the probabilities of the datasets, and return the number of rows to read."""
    counts = {name: used[name].count(kept) for name in data["datasets"]}
    drawn = {name: used[name].passes * count for name, count in counts.items()}
    total = sum(drawn.values()) if rows is None else rows
    mixture = data.pop("mixture", {})
    data["training"].pop("max_steps", None)
    data["training"]["num_train_epochs"] = total / sum(counts.values())
    data["mixture"] = {key: mixture[key] for key in ("batching", "length_window") if key in mixture}
    if len(counts) > 1 and len(kept) > 1 and not alone and mixture.get("headroom"):
        data["mixture"]["headroom"] = mixture["headroom"]
    if len(counts) > 1:
        data["mixture"]["probabilities"] = {name: share / sum(drawn.values()) for name, share in drawn.items()}
    return total


def fit_steps(training: dict[str, Any], share: float) -> None:
    """Fit what counts optimizer steps to a training of a different length.

    Steps between two checkpoints stay a multiple of the steps between two evaluations, as Trainer demands where it
    keeps the best model.

    Args:
        training: the section of a recipe, with variables as they stand, which is changed in place.
        share: the new length of the training, divided by the old length.
    """
    values = expand(training)
    given = {key: float(values[key]) for key in _IN_STEPS if values.get(key) is not None}
    for key, steps in given.items():
        if steps >= 1:
            training[key] = max(1, round(steps * share))
    evaluated, saved = given.get("eval_steps", 0.0), given.get("save_steps", 0.0)
    if evaluated >= 1 and saved >= 1 and saved % evaluated == 0:
        training["save_steps"] = training["eval_steps"] * round(saved / evaluated)


def _fit_metric(training: dict[str, Any], recipe: Mapping[str, Any], kept: Collection[str]) -> None:
    """Choose the best model by a task that is kept.

    Args:
        training: the section, which is changed in place.
        recipe: the complete recipe with its variables expanded.
        kept: the tasks to keep.
    """
    metric = str(recipe.get("training", {}).get("metric_for_best_model") or "loss").removeprefix("eval_")
    # The longest name, since the name of a task may start with that of a different task.
    owner = max((task for task in recipe["tasks"] if metric.startswith(f"{task}_")), key=len, default=None)
    if metric not in {"loss", "mtl_score"} and owner not in kept:
        training |= {"metric_for_best_model": "mtl_score", "greater_is_better": True}
