"""The plan of a run as text, which `mtl-nlp plan` prints."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.trainer_utils import SaveStrategy

from mtl_nlp.data.buckets import bucketed
from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import counted, table
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.adapters_multitask import (
    adapter_parameters,
    peft_adapter_name,
)
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.build import build_meta_model, plan_batches
from mtl_nlp.run.defaults import chosen_defaults
from mtl_nlp.run.gradients import describe_gradients
from mtl_nlp.run.prepare import Run
from mtl_nlp.run.rehearsal import rehearse
from mtl_nlp.run.settings import describe_settings
from mtl_nlp.run.teachers import describe_teachers
from mtl_nlp.run.weighting import describe_weighting
from mtl_nlp.training.arguments import MultitaskTrainingArguments, check_layer_decay
from mtl_nlp.training.precision import reason_for_bf16
from mtl_nlp.training.schedule import bucket_limit

_MEASURED_ROWS = 200_000

_STARTED_ALONE = {"ACCELERATE_USE_CPU", "MASTER_ADDR", "MASTER_PORT"}
"""The environment of the one process that `accelerate launch --cpu` starts if it is asked for several."""


def describe_plan(run: Run, arguments: MultitaskTrainingArguments) -> str:
    """Describe a run before training: tasks, label spaces, datasets, sampling, steps, processes, padding, and notes.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if the mixture or its batches cannot be built, or the gradient method or the training arguments do
            not fit the model.
    """
    sampler = plan_batches(run, arguments)
    mixture = sampler.mixture
    tasks = [
        (name, task.type, task.num_labels, _shortened(task.labels) or "a number", _feeders(run, name) or "none")
        for name, task in run.tasks.items()
    ]
    words = " Texts are split into words." if run.config.reads_words else ""
    limit = run.config.max_length or "any number of"
    model = build_meta_model(run)
    try:
        check_layer_decay(model, arguments)
    except ValueError as error:
        raise RecipeError(f"training: {error}") from error
    rehearse(run, model, arguments, _steps_of(sampler, arguments)[1])
    encoder = f"{run.recipe.as_written()['encoder']} ({_family(run)})"
    parts = [
        f"encoder: {encoder}, reads at most {limit} sub-words at once.{words}\n"
        f"{describe_parameters(model)}{_frozen(model, run)}",
        table(("task", "type", "labels", "label space", "datasets"), tasks),
        table(
            (
                *("dataset", "train", "validation", "test", "probability", "windows/epoch", "passes", "sub-words"),
                *("median length", "longest"),
            ),
            _datasets(run, mixture, sampler.total_batches / len(sampler)),
        ),
        f"{_steps(sampler, arguments)}\n{_processes(arguments)}{_padding(sampler, arguments)}",
        _precision(arguments),
        "\n".join(f"default: {default.describe()}" for default in chosen_defaults(run, arguments)),
        _headroom(run),
        describe_weighting(run.recipe, arguments),
        describe_gradients(model, mixture, run.recipe, arguments),
        describe_teachers(run.train, run.teachers, run.tasks),
        "\n".join(
            f"note: {encoded.name}: there are fewer rows ({encoded.num_windows}) than processes, so some processes "
            f"have no row of this dataset in a step"
            for encoded in mixture.datasets.values()
            if encoded.num_windows < sampler.num_processes
        ),
        _first_checkpoint(sampler, arguments),
        _warmup(sampler, arguments),
        "\n".join(f"note: {note}" for note in describe_settings(arguments)),
        describe_notes(run),
    ]
    return "\n\n".join(part for part in parts if part)


def _family(run: Run) -> str:
    """Return the family and size of the encoder, which a variable in the recipe does not show."""
    config = run.config.text_config
    values = config.to_dict()
    layers, size = (values.get(config.attribute_map.get(key, key)) for key in ("num_hidden_layers", "hidden_size"))
    shown = [config.model_type]
    shown += [counted(layers, "layer")] if isinstance(layers, int) else []
    shown += [f"hidden size {size}"] if isinstance(size, int) else []
    return ", ".join(shown)


def _datasets(run: Run, mixture: TaskMixture, epochs: float) -> list[tuple[Any, ...]]:
    """Return the rows of the table of datasets."""
    probabilities = mixture.mean_probabilities
    mean_lengths = np.array([encoded.lengths.mean() for encoded in mixture.datasets.values()])
    tokens = probabilities * mean_lengths / (probabilities @ mean_lengths)
    datasets = []
    for number, (name, encoded) in enumerate(mixture.datasets.items()):
        held_out = [run.splits.get(split, {}).get(name) for split in ("validation", "test")]
        lengths = encoded.lengths
        datasets.append(
            (
                name,
                encoded.num_rows,
                *(0 if split is None else split.num_rows for split in held_out),
                round(float(probabilities[number]), 4),
                round(float(probabilities[number]) * len(mixture)),
                round(float(probabilities[number]) * len(mixture) * epochs / encoded.num_windows, 2),
                f"{tokens[number]:.1%}",
                int(np.median(lengths)),
                int(lengths.max()),
            )
        )
    return datasets


def _frozen(model: MultitaskModel, run: Run) -> str:
    """Return a sentence about the parts that the recipe freezes, each with its number of parameters."""
    parts = {part: set(model.parameters_of(part)) for part in run.recipe.freeze}
    shown = ", ".join(f"{part} ({sum(p.numel() for p in own):,} parameters)" for part, own in parts.items())
    return f"\nFrozen: {shown}." if parts else ""


def _headroom(run: Run) -> str:
    """Return a sentence about probabilities that follow the validation scores; empty if they do not."""
    if not run.headroom:
        return ""
    of = "the best scores so far"
    if isinstance(run.headroom, dict):
        shown = ", ".join(f"{task} {score:.4g}" for task, score in run.headroom.items())
        of = f"the scores of single-task runs ({shown}), on the split of their comparison"
    return (
        f"headroom: the probabilities above are those of the first epoch. In each later epoch, half of the probability "
        f"of a dataset follows how far its tasks' last validation scores are from {of}."
    )


def _steps_of(sampler: MixtureBatchSampler, arguments: MultitaskTrainingArguments) -> tuple[int, int]:
    """Return the number of optimizer steps in an epoch, and in total."""
    accumulated = arguments.gradient_accumulation_steps
    return math.ceil(len(sampler) / accumulated), sampler.total_batches // accumulated


def _steps(sampler: MixtureBatchSampler, arguments: MultitaskTrainingArguments) -> str:
    batches = arguments.gradient_accumulation_steps * arguments.world_size
    size = counted(arguments.per_device_train_batch_size * batches, "row")
    if arguments.max_tokens_per_batch is not None:
        size = f"at most {arguments.max_tokens_per_batch * batches} sub-words"
    per_epoch, total = _steps_of(sampler, arguments)
    return f"{counted(per_epoch, 'step')} per epoch with {size} each, {counted(total, 'step')} in total."


def _first_checkpoint(sampler: MixtureBatchSampler, arguments: MultitaskTrainingArguments) -> str:
    """Return a note if no checkpoint comes before the last step of training."""
    per_epoch, total = _steps_of(sampler, arguments)
    trigger, every = arguments.save_strategy, arguments.save_steps
    if trigger == SaveStrategy.BEST:  # the first evaluation is the best so far
        trigger, every = arguments.eval_strategy, arguments.eval_steps
    if every is not None and every < 1:
        every = math.ceil(total * every)
    first = {"steps": every, "epoch": per_epoch}.get(trigger.value)
    if first is not None and first < total:
        return ""
    strategy = arguments.save_strategy
    if first is None:
        when, what = f"no checkpoint is saved (training.save_strategy is {strategy.value})", "checkpoints"
    else:
        steps = f" and training.save_steps is {arguments.save_steps:g}" if strategy == SaveStrategy.STEPS else ""
        how = f"training.save_strategy is {strategy.value}{steps}"
        when, what = f"the first checkpoint comes at the end of training, with step {total} ({how})", "earlier ones"
    return (
        f"note: {when}, so a run that is killed has to start again. For {what}, set training.save_strategy: steps, and "
        f"training.save_steps to a number below {total}"
    )


def _warmup(sampler: MixtureBatchSampler, arguments: MultitaskTrainingArguments) -> str:
    """Return a note if the training ends before its warmup does."""
    _, total = _steps_of(sampler, arguments)
    if arguments.warmup_steps <= total:
        return ""
    return (
        f"note: training.warmup_steps: {arguments.warmup_steps:g} is more than the {counted(total, 'step')} of the "
        f"training, so the learning rate ends at {total / arguments.warmup_steps:.1%} of learning_rate. A number below "
        f"1 is a share of all steps"
    )


def _processes(arguments: MultitaskTrainingArguments) -> str:
    if arguments.world_size > 1:
        return f"{arguments.world_size} processes."
    devices = 1 if arguments.use_cpu else torch.accelerator.device_count()
    if devices > 1:
        return (
            f"1 process, on one of {devices} devices. To use all devices: "
            f"accelerate launch --num_processes {devices} -m mtl_nlp train RECIPE."
        )
    if os.environ.keys() >= _STARTED_ALONE and os.environ["ACCELERATE_USE_CPU"].lower() == "true":
        return (
            "1 process, since accelerate launch --cpu starts only one, whatever --num_processes says. For several: "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m mtl_nlp train RECIPE."
        )
    return "1 process."


def _precision(arguments: MultitaskTrainingArguments) -> str:
    """Return a line about the number format that `precision: auto` has chosen; empty if the recipe gives a format."""
    if arguments.precision != "auto":
        return ""
    if not arguments.bf16:
        is_slow = reason_for_bf16(use_cpu=arguments.use_cpu) is None
        reason = (
            "this machine does not compute bfloat16 fast" if is_slow else "`accelerate launch` or DeepSpeed decides"
        )
        return f"default: training.precision is {arguments.number_format}: {reason}"
    return (
        f"default: training.precision is bf16: {reason_for_bf16(use_cpu=arguments.use_cpu)} multiply faster; weights, "
        f"their updates and losses stay in float32"
    )


def _padding(sampler: MixtureBatchSampler, arguments: MultitaskTrainingArguments) -> str:
    """Return a sentence about the share of padding in the first batches of the first epoch, over all processes."""
    if sampler.mixture.is_streamed:
        return ""
    limit = bucket_limit(sampler.mixture, arguments)
    rows = sub_words = positions = 0
    for step in sampler.steps():
        for process in range(sampler.num_processes):
            lengths = sampler.mixture.lengths[step[process :: sampler.num_processes]]
            sub_words += int(lengths.sum())
            longest = int(lengths.max())
            positions += (longest if limit is None else bucketed(longest, limit)) * len(lengths)
        rows += len(step)
        if rows >= _MEASURED_ROWS:
            break
    return f" {1.0 - sub_words / positions:.1%} of the sub-words are padding."


def describe_notes(run: Run) -> str:
    """Return the notes on a run's data, one per line."""
    return "\n".join(f"note: {note}" for note in run.notes)


def _feeders(run: Run, task: str) -> str:
    return ", ".join(name for name, encoded in run.train.items() if task in encoded.feeds)


def _shortened(labels: Sequence[str], most: int = 60) -> str:
    text = " ".join(labels)
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def describe_parameters(model: MultitaskModel) -> str:
    """Return a line with the number of trained parameters, in total and per part."""

    def size(parameters: list[nn.Parameter], of_trained: bool = True) -> int:
        return sum(p.numel() for p in set(parameters) if p.requires_grad or not of_trained)

    every = list(model.parameters())
    trained, total = size(every), size(every, of_trained=False)
    if not model.adapter_names and trained == total:
        return f"{total:,} parameters, all of them trained."
    adapters = {name: adapter_parameters(model.encoder, [peft_adapter_name(name)]) for name in model.adapter_names}
    plain = list(set(model.encoder.parameters()) - set(adapter_parameters(model.encoder)))
    encoder = size(plain, of_trained=False)
    parts = [f"encoder {size(plain):,}"]
    parts += [
        f"adapter of {name} {size(own):,} ({size(own, of_trained=False) / encoder:.2%} of the encoder)"
        for name, own in adapters.items()
    ]
    parts.append(f"heads {size(list(model.heads.parameters())):,}")
    return f"{trained:,} of {total:,} parameters trained ({trained / total:.2%}): {', '.join(parts)}."
