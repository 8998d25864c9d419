"""Headroom: probabilities of datasets that follow how far the tasks are from their reference scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerState

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.best import validation_scores
from mtl_nlp.training.callbacks import EpochStart
from mtl_nlp.training.freezing import frozen_tasks


def dataset_gaps(
    history: Sequence[Mapping[str, Any]],
    mixture: TaskMixture,
    tasks: Mapping[str, Task],
    until: int,
    patience: int | None = None,
) -> np.ndarray | None:
    """Return the gap of each dataset: the mean of the gaps of its tasks (Gottumukkala et al. 2020).

    The gap of a task is 1 − score / reference, at least 0 and at most 1, with its last score on validation. The
    reference is the score that `TaskMixture.headroom` gives, or else the best score so far. A frozen task, and a task
    with a reference of 0 or below, has the gap 0. A task without a score does not count. The result depends on nothing
    but the training log, so that a resumed run draws the same rows.

    Args:
        history: the entries of the training log.
        mixture: the mixture.
        tasks: the tasks by name.
        until: the last optimizer step whose evaluations count.
        patience: the patience of freezing, see `frozen_tasks`.

    Returns:
        The gaps, shape (datasets,); None if a dataset has no task with a score.
    """
    mixed = {task for encoded in mixture.datasets.values() for task in encoded.feeds}
    tasks = {name: task for name, task in tasks.items() if name in mixed}
    frozen = frozen_tasks(history, tasks, patience, until)
    of_tasks = {}
    for name, task in tasks.items():
        scores = {step: score for step, score in validation_scores(history, name, task).items() if step <= until}
        if not scores:
            continue
        given = mixture.headroom[name] if isinstance(mixture.headroom, Mapping) else max(scores.values())
        is_open = name not in frozen and given > 0.0
        # Above 1 only for a score below 0, such as that of an unlearned regression, which would outweigh all others.
        of_tasks[name] = min(1.0, max(0.0, 1.0 - scores[max(scores)] / given)) if is_open else 0.0
    of_datasets = [
        [of_tasks[task] for task in tasks if task in of_tasks and task in encoded.feeds]
        for encoded in mixture.datasets.values()
    ]
    return np.array([np.mean(gaps) for gaps in of_datasets]) if all(of_datasets) else None


def check_headroom(
    sampler: MixtureBatchSampler, evaluated: Mapping[str, EncodedDataset], args: MultitaskTrainingArguments
) -> None:
    """Check that a training can follow the headroom of its mixture; do nothing for a mixture without headroom.

    Args:
        sampler: the sampler of the batches.
        evaluated: the validation split of each dataset.
        args: the training arguments.

    Raises:
        ValueError: if an epoch can pass without an evaluation, or a dataset has no task with a score or a reference.
    """
    mixture = sampler.mixture
    if not mixture.headroom:
        return
    remedy = "Set `eval_strategy: epoch`, or leave out `headroom`."
    if args.eval_strategy == "no":
        raise ValueError(f"`headroom` needs an evaluation in each epoch. Found `eval_strategy: no`. {remedy}")
    accumulated = args.gradient_accumulation_steps
    in_epoch, total = math.ceil(len(sampler) / accumulated), sampler.total_batches // accumulated
    every = args.eval_steps or 1
    steps = math.ceil(total * every) if every < 1 else int(every)
    if args.eval_strategy == "steps" and steps > in_epoch:
        raise ValueError(
            f"`headroom` needs an evaluation in each epoch, of {in_epoch} steps. Found an evaluation every {steps} "
            f"steps. {remedy}"
        )
    scored = {task for encoded in evaluated.values() for task in encoded.feeds}
    for name, encoded in mixture.datasets.items():
        if not scored & set(encoded.feeds):
            raise ValueError(
                f"`headroom` needs validation scores for each dataset. No task of {name!r} has labels in a validation "
                f"split. Add such a split, or leave out `headroom`."
            )
        for task in sorted(scored & set(encoded.feeds)):
            if isinstance(mixture.headroom, Mapping) and task not in mixture.headroom:
                raise ValueError(f"`headroom` should have a reference score for each task. {task!r} is missing.")


class HeadroomCallback(TrainerCallback):
    """Callback that gives the sampler the gaps of the datasets at the start of each epoch, and logs the probabilities.

    Args:
        epochs: the callback that knows the sampler and its epoch. It comes before this callback.
        tasks: the tasks by name.
        log: a function that adds an entry to the training log.
    """

    def __init__(self, epochs: EpochStart, tasks: Mapping[str, Task], log: Callable[[dict[str, float]], None]) -> None:
        self.epochs = epochs
        self.tasks = tasks
        self.log = log

    def on_epoch_begin(
        self, args: MultitaskTrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Set the gaps of all epochs so far. Log `probability_<dataset>`, unless the epoch began before a checkpoint.

        The schedule of an epoch depends on all epochs before, whose gaps therefore are computed again. Do nothing for a
        mixture without headroom.
        """
        # A subclass of the trainer can have a different loader, whose epochs do not begin here.
        if not self.epochs.begun or not self.epochs.begun[-1].sampler.mixture.headroom:
            return
        begun = self.epochs.begun[-1]
        sampler, mixture = begun.sampler, begun.sampler.mixture
        in_epoch = math.ceil(len(sampler) / args.gradient_accumulation_steps)
        sampler.gaps = [
            dataset_gaps(state.log_history, mixture, self.tasks, epoch * in_epoch, args.freeze_patience)
            for epoch in range(begun.epoch + 1)
        ]
        if begun.batches == 0:
            progress = min(begun.epoch * len(sampler) / sampler.total_batches, 1.0)
            probabilities = mixture.probabilities_at(progress, sampler.gaps[-1])
            names = [f"probability_{name}" for name in mixture.datasets]
            self.log(dict(zip(names, probabilities.tolist(), strict=True)))
