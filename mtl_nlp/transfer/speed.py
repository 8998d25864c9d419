"""The speed of training and of answering, measured on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run
from mtl_nlp.serving.predict import load_pipeline

_WARM_UP_STEPS = 2
_TIMED_STEPS = 8
_ROUNDS = 3
_BATCH_SIZE = 32


class _Clock(TrainerCallback):
    """Callback that notes the times of the first timed step's start and of the last step's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def rows_per_second(run: Run) -> float:
    """Return the number of training rows per second of a run, measured on a few steps; nothing is kept.

    Args:
        run: the run.

    Raises:
        RecipeError: if the run cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = {
            **run.recipe.training,
            "max_steps": _WARM_UP_STEPS + _TIMED_STEPS,
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "push_to_hub": False,
        }
        recipe = run.recipe.model_copy(update={"training": training, "output_dir": folder})
        run = dataclasses.replace(run, recipe=recipe)
        arguments = training_arguments(recipe)
        trainer = build_trainer(run, build_model(run), arguments)
        clock = _Clock()
        trainer.add_callback(clock)
        with open(os.devnull, "w", encoding="utf-8") as quiet, contextlib.redirect_stdout(quiet):
            trainer.train()
    timed = clock.times[min(_WARM_UP_STEPS, len(clock.times) - 2) :]
    steps = len(timed) - 1
    rows = steps * arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return rows / max(timed[-1] - timed[0], 1e-9)


def milliseconds_per_1000_texts(
    sides: Mapping[str, Sequence[Path]], texts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the time in which each side answers all tasks, for 1,000 texts.

    The sides take turns, so that other work on the machine slows all of them down; the result is the median of three
    rounds. The models of a side answer one after the other.

    Args:
        sides: the name of a side -> the folders of its models, which together have all tasks.
        texts: inputs of the pipeline.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_ROUNDS):
        for name, folders in sides.items():
            seconds[name].append(sum(_seconds(folder, texts) for folder in folders))
    return {name: 1e6 * statistics.median(values) / len(texts) for name, values in seconds.items()}


def _seconds(folder: Path, texts: Sequence[Mapping[str, Any]]) -> float:
    pipeline = load_pipeline(str(folder))
    pipeline(list(texts[:_BATCH_SIZE]), batch_size=_BATCH_SIZE)
    started = time.perf_counter()
    pipeline(list(texts), batch_size=_BATCH_SIZE)
    return time.perf_counter() - started


def answering_passes(config: MultitaskConfig, served: Collection[str]) -> int:
    """Return the number of encoder passes in which a model answers tasks for a text.

    Args:
        config: the configuration of the model.
        served: the tasks that the model answers.
    """
    adapted = {options["name"] for options in config.adapters or ()}
    tasks = {task.name for task in config.get_tasks() if task.name in served}
    return len(tasks & adapted) + bool(tasks - adapted)
