"""Train with gradient methods and measure conflict: `gradients_worker.py TOKENIZER FOLDER`.

test_task_gradients.py starts the script with 1 and 2 processes and compares the results.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from builders import PULL, build_adapted_model, build_model, unequal_split
from toy_gradient_methods import PlainSum
from toy_splits import TASKS
from toy_weightings import Uncertainty
from train_worker import TOKENIZER, arguments, dealt_out
from trainers import logs_of
from watched_training import OrderedTrainer, Recorder

from mtl_nlp import MultitaskModel, TaskMixture
from mtl_nlp.balancing.gradient_methods import GRADIENT_METHODS, build_gradient_method
from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.weighting import LossWeighting

STEPS = [list(range(32)), list(range(31, 5, -1)), list(range(6, 32))]


def train(
    folder: str,
    method: GradientMethod | None,
    accumulation: int = 1,
    model: MultitaskModel | None = None,
    weighting: LossWeighting | None = None,
    steps: int = len(STEPS),
    **changes: Any,
) -> dict[str, Any]:
    """Train for a few steps on given batches, in which few micro-batches have the rare tasks."""
    settings = arguments(folder, max_steps=steps, gradient_accumulation_steps=accumulation, **changes)
    recorder = Recorder()
    trainer = OrderedTrainer(
        model or build_model(), settings, None, TaskMixture({"d": unequal_split(TOKENIZER)}), None, TOKENIZER,
        callbacks=[recorder], loss_weighting=weighting, gradient_method=method,
    )  # fmt: skip
    place = (settings.process_index, settings.world_size, accumulation)
    trainer.batches = [batch for step in STEPS for batch in dealt_out(step, *place)]
    trainer.train()
    return {
        "start": recorder.start,
        "gradients": recorder.gradients[0],
        "weights": recorder.weights,
        "logs": logs_of(trainer),
        "weighting": {} if weighting is None else weighting.state_dict(),
        "conflict": None if trainer.conflict is None else trainer.conflict.conflict.content(),
    }


def main(folder: str) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"world_size": arguments(folder).world_size}
    for accumulation in (1, 2):
        found[f"plain-{accumulation}"] = train(folder, None, accumulation)
        found[f"sum-{accumulation}"] = train(folder, PlainSum(TASKS), accumulation)
    for name, method in (("plain", None), ("sum", PlainSum(TASKS))):
        model, weighting = build_adapted_model(), Uncertainty(list(TASKS))
        found[f"{name}-adapters"] = train(folder, method, 1, model, weighting, adapter_pull=PULL)
    for name in GRADIENT_METHODS:
        for accumulation in (1, 2) if found["world_size"] > 1 else (1,):
            method = build_gradient_method(name, TASKS, {})
            found[f"{name}-{accumulation}"] = train(folder, method, accumulation, steps=1)
    every_second = PlainSum(TASKS)
    every_second.every = 2
    found["every-second"] = train(folder, every_second, conflict_every=1)
    found["measured"] = train(folder, None, conflict_every=1)
    torch.save(found, Path(folder) / f"rank{arguments(folder).process_index}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
