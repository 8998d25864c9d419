"""The look-ahead affinity of tasks, and the cosines of their gradients, measured in one short joint training.

The affinity of task i onto task j is

    Z_{i→j} = 1 − L_j(θ after a step on the gradient of L_i) / L_j(θ),

the share of the loss of j that one step on task i takes away, averaged over the training (Fifty et al. 2021,
"Efficiently Identifying Task Groupings for Multi-Task Learning", section 3.1). Only the parameters θ that all tasks
share take the step; heads and adapters of tasks stay as they are.

- The step is a plain SGD step at the learning rate of the training before its schedule, whatever the optimizer, so that
  all measurements have the same size of a step and Z is to first order the inner product of the gradients of i and j,
  divided by L_j. A step with Adam's factor 1 / √v for each parameter was tried with MiniLM on 800 sentences: on the
  noisy gradient of one batch, without Adam's momentum, it was so long that it raised the loss of its own task on
  other rows.
- Tasks with labels on the same texts are measured on the same rows, as by Fifty et al. With losses on other rows than
  the gradients, 20 measurements of 32 sentences showed no effect beyond chance, even between UPOS and a coarser UPOS
  made from it, whose gradients have a mean cosine of 0.37. Pairs that are trained show the effect on other texts.
- The measurements are in float32 and without dropout, and do not change the training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import TrainerCallback

from mtl_nlp.balancing.conflict import Conflict, block_gramians, blocks_of
from mtl_nlp.balancing.gradients import shared_parameters
from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.loss_multitask import count_step
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run
from mtl_nlp.run.reduction import labelled_rows
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.task_gradients import check_task_gradients

MOST_ROWS = 32
"""The largest number of rows of a dataset in a measurement."""

Batches = Sequence[Mapping[str, Any]]

SHORT_TRAINING: dict[str, Any] = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "push_to_hub": False,
    "report_to": "none",
}
"""Training arguments of a short training, which is not evaluated on its way."""


class Measurements(NamedTuple):
    """The measurements of a joint training.

    Attributes:
        affinity: Z of each task (second axis) onto each task (third axis), shape (measurements, tasks, tasks); NaN
            where a task had no rows.
        conflict: the cosines between the tasks' gradients.
    """

    affinity: np.ndarray
    conflict: Conflict


class ProbeRows:
    """Random training rows of every dataset, on which gradients and losses are measured.

    Args:
        run: the run.
        rows: the number of rows of each dataset in a measurement; all tasks of a dataset have a part of them.
        seed: the seed of the draws.
    """

    def __init__(self, run: Run, rows: int, seed: int) -> None:
        self.collator = MultitaskDataCollator(run.tokenizer, run.tasks)
        datasets = {name: data for name, data in run.train.items() if isinstance(data, EncodedDataset) and data.feeds}
        self.datasets = [(data, labelled_rows(data)) for data in datasets.values()]
        self.rows = rows
        self.random = np.random.default_rng(seed)

    def draw(self) -> list[dict[str, Any]]:
        """Draw a batch of each dataset."""
        return [self._batch(data, labelled) for data, labelled in self.datasets]

    def _batch(self, data: EncodedDataset, labelled: Mapping[str, np.ndarray]) -> dict[str, Any]:
        share = -(-self.rows // len(labelled))
        rows: set[int] = set()
        for mask in labelled.values():
            places = np.flatnonzero(mask)
            rows.update(self.random.choice(places, min(share, len(places)), replace=False).tolist())
        return self.collator([data[row] for row in sorted(rows)])


def task_gradients(model: MultitaskModel, batches: Batches, tasks: Sequence[str]) -> torch.Tensor:
    """Return the gradients of the tasks' mean losses on the shared parameters, shape (tasks, parameters), in float32.

    Args:
        model: the model.
        batches: the batches, over all of which the mean of a loss is taken.
        tasks: the names of the tasks. A task without rows has a gradient of zero.
    """
    shared = shared_parameters(model)
    units = count_step(batches, model.tasks).units
    size = sum(parameter.numel() for parameter in shared)
    gradients = torch.zeros(len(tasks), size, device=shared[0].device)
    for batch in batches:
        sums = model(**batch).loss_sums or {}
        present = [task for task in tasks if len(batch["rows"][task])]
        for task in present:
            found = torch.autograd.grad(
                sums[task] / units[task],
                shared,
                retain_graph=task != present[-1],
                allow_unused=True,
                materialize_grads=True,
            )
            gradients[tasks.index(task)] += torch.cat([each.flatten().float() for each in found])
    return gradients


@torch.no_grad()
def mean_losses(model: MultitaskModel, batches: Batches, tasks: Sequence[str]) -> np.ndarray:
    """Return the mean loss of each task over batches, shape (tasks,); NaN for a task without labels."""
    units = count_step(batches, model.tasks).units
    total = dict.fromkeys(tasks, 0.0)
    for batch in batches:
        sums = model(**batch).loss_sums or {}
        for task in tasks:
            total[task] += float(sums[task])
    return np.array([total[task] / units[task] if units[task] else np.nan for task in tasks])


def look_ahead(
    model: MultitaskModel,
    gradients: torch.Tensor,
    batches: Batches,
    tasks: Sequence[str],
    rates: Sequence[float],
) -> np.ndarray:
    """Return Z, the share of each task's loss that a step on each task's gradient takes away.

    The model is the same afterwards, to the last bit.

    Args:
        model: the model.
        gradients: the gradients of the tasks on the shared parameters, see `task_gradients`.
        batches: the batches on which the losses are read.
        tasks: the names of the tasks.
        rates: the learning rate of each shared parameter, see `step_rates`.

    Returns:
        Z of each task (row) onto each task (column), shape (tasks, tasks); NaN where a task has no rows, and in the
        row of a task with a gradient of zero.
    """
    shared = shared_parameters(model)
    kept = [parameter.detach().clone() for parameter in shared]
    before = mean_losses(model, batches, tasks)
    affinity = np.full((len(tasks), len(tasks)), np.nan)
    for row, gradient in enumerate(gradients):
        if not gradient.any():
            continue
        pieces = gradient.split([parameter.numel() for parameter in shared])
        try:
            with torch.no_grad():
                for parameter, piece, rate in zip(shared, pieces, rates, strict=True):
                    parameter -= (rate * piece.view_as(parameter)).to(parameter.dtype)
            with np.errstate(divide="ignore", invalid="ignore"):  # a loss of 0 has no share to take away
                affinity[row] = 1.0 - mean_losses(model, batches, tasks) / before
        finally:
            with torch.no_grad():
                for parameter, value in zip(shared, kept, strict=True):
                    parameter.copy_(value)
    return affinity


def step_rates(optimizer: torch.optim.Optimizer, shared: Sequence[nn.Parameter]) -> list[float]:
    """Return the learning rate of each shared parameter before the schedule.

    Args:
        optimizer: the optimizer of the training.
        shared: the shared parameters.
    """
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    return [float(groups[parameter].get("initial_lr", groups[parameter]["lr"])) for parameter in shared]


class AffinityCallback(TrainerCallback):
    """Callback that measures the look-ahead affinity and the gradients' cosines every few steps of a training.

    Args:
        run: the run.
        every: the number of optimizer steps from one measurement to the next.
        rows: the number of rows of each dataset in a measurement, see `ProbeRows`.
        seed: the seed of the rows.

    Attributes:
        found: Z of each measurement.
        conflict: the cosines; None before the first measurement.
    """

    def __init__(self, run: Run, every: int, rows: int, seed: int) -> None:
        self.tasks = list(run.recipe.tasks)
        self.every = every
        self.probes = ProbeRows(run, rows, seed)
        self.found: list[np.ndarray] = []
        self.conflict: Conflict | None = None

    def on_step_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: MultitaskModel,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Measure if the step is due."""
        if state.global_step % self.every == 0:
            self.measure(model, optimizer, state.global_step)

    def measure(self, model: MultitaskModel, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Measure the affinity of all tasks, and the cosines of their gradients.

        Args:
            model: the model.
            optimizer: the optimizer.
            step: the number of the optimizer step.
        """
        shared = shared_parameters(model)
        batches = send_to_device(self.probes.draw(), shared[0].device)
        was_training = model.training
        model.eval()
        gradients = task_gradients(model, batches, self.tasks)
        self.found.append(look_ahead(model, gradients, batches, self.tasks, step_rates(optimizer, shared)))
        model.train(was_training)
        blocks = blocks_of(model)
        if self.conflict is None:
            self.conflict = Conflict(self.tasks, blocks.names, self.every)
        rows = count_step(batches, model.tasks).task_rows
        self.conflict.add(step, rows, block_gramians(gradients, blocks.slices, len(blocks.names)))


def short_run(run: Run, steps: int, output: str) -> Run:
    """Return a run with a training of a given number of steps, without evaluations, checkpoints and files.

    The schedule of the learning rate, in shares of the training, and the mixture are those of the recipe. `headroom`
    and `freeze_when_overfit`, which follow evaluations, are left out.

    Args:
        run: the run.
        steps: the number of optimizer steps.
        output: a folder for Trainer, which is not written to.
    """
    recipe = run.recipe
    training = {
        **recipe.training,
        **SHORT_TRAINING,
        "max_steps": steps,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    if "plateau" in str(training.get("lr_scheduler_type")):
        training["lr_scheduler_type"] = "linear"
    update = {
        "training": training,
        "output_dir": output,
        "mixture": recipe.mixture.model_copy(update={"headroom": False}),
        "loss": recipe.loss.model_copy(update={"freeze_when_overfit": None}),
        "analysis": recipe.analysis.model_copy(update={"conflict_every": None}),
    }
    return dataclasses.replace(run, recipe=recipe.model_copy(update=update), headroom=False)


def check_measurable(run: Run, model: MultitaskModel) -> None:
    """Check that the effects of a run's tasks on each other can be measured in its training.

    Args:
        run: the run.
        model: the model of the run, with or without weights.

    Raises:
        RecipeError: if the tasks share no trained parameters, or a dataset is streamed.
    """
    if run.streams:
        raise RecipeError(
            f"datasets.{next(iter(run.streams))}: the affinity is measured on random rows, which a stream does not "
            f"have. Leave out `streaming`, or use --pairwise."
        )
    arguments = training_arguments(run.recipe)
    try:
        check_task_gradients(model, is_sharded=bool(arguments.fsdp) or arguments.deepspeed is not None)
    except ValueError as error:
        raise RecipeError(f"affinity: {error}") from error


def measure_steps(run: Run, steps: int, every: int) -> Measurements:
    """Train all tasks jointly for some steps, and measure their effects on each other; the model is not kept.

    Args:
        run: the run.
        steps: the number of optimizer steps.
        every: the number of optimizer steps from one measurement to the next.

    Raises:
        RecipeError: if the run cannot be built, or its tasks share no trained parameters.
        RunError: if the training diverges.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = short_run(run, steps, folder)
        # Accelerate forgets its state when further arguments are created, so these are those of the trainer.
        arguments = training_arguments(run.recipe)
        model = build_model(run)
        trainer = build_trainer(run, model, arguments)
        callback = AffinityCallback(run, every, rows_per_probe(arguments), arguments.seed)
        trainer.add_callback(callback)
        with open(os.devnull, "w", encoding="utf-8") as quiet, contextlib.redirect_stdout(quiet):
            trainer.train()
    assert callback.conflict is not None
    return Measurements(np.stack(callback.found), callback.conflict)


def rows_per_probe(arguments: MultitaskTrainingArguments) -> int:
    """Return the number of rows of each dataset in a measurement: as many as a batch has, at most `MOST_ROWS`."""
    return min(MOST_ROWS, arguments.per_device_train_batch_size)
