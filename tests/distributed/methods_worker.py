"""Train with every loss weighting, and resume in the middle of an epoch: `methods_worker.py TOKENIZER FOLDER`.

test_methods.py starts the script with 1 and 2 processes and compares the results.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from builders import unequal_split
from toy_splits import TASKS
from toys import build_config
from train_worker import TOKENIZER, arguments, dealt_out
from trainers import logs_of
from watched_training import OrderedTrainer

from mtl_nlp import MultitaskConfig, MultitaskModel, TaskMixture
from mtl_nlp.balancing.registry import WEIGHTINGS, build_weighting

STEPS = [list(range(32)), list(range(31, 5, -1))]
"""The rows of the steps of an epoch. The second step has no topic, and few micro-batches have the rare tasks."""


def train(
    folder: str, name: str, accumulation: int, dropout: float = 0.0, resume: str | None = None, **more: Any
) -> dict[str, Any]:
    """Train for four epochs of two steps."""
    settings = arguments(
        folder, num_train_epochs=4, gradient_accumulation_steps=accumulation, learning_rate=0.01, **more
    )
    torch.manual_seed(0)
    config = build_config("bert", hidden_dropout_prob=dropout)
    model = MultitaskModel(MultitaskConfig(text_config=config, tasks=[*TASKS.values()]))
    weighting = build_weighting(name, TASKS, {}, {})
    trainer = OrderedTrainer(
        model, settings, None, TaskMixture({"d": unequal_split(TOKENIZER)}), None, TOKENIZER, loss_weighting=weighting
    )
    place = (settings.process_index, settings.world_size, accumulation)
    trainer.batches = [batch for step in STEPS for batch in dealt_out(step, *place)]
    trainer.train(resume_from_checkpoint=resume)
    return {
        "weights": model.state_dict(),
        "state": weighting.state_dict(),
        "logs": logs_of(trainer),
    }


def main(folder: str) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"world_size": arguments(folder).world_size}
    for name in WEIGHTINGS.keys() - {"static"}:
        for accumulation in (1, 2):
            found[f"{name}-{accumulation}"] = train(folder, name, accumulation)
        place = f"{folder}/{name}"
        found[f"{name}-whole"] = train(place, name, 2, dropout=0.2, save_strategy="steps", save_steps=5)
        found[f"{name}-resumed"] = train(place, name, 2, dropout=0.2, resume=f"{place}/run/checkpoint-5")
    torch.save(found, Path(folder) / f"rank{arguments(folder).process_index}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
