"""Train with learned loss weightings, and resume from a checkpoint: `weighting_worker.py TOKENIZER FOLDER`.

test_weighting.py starts the script with 1 and 2 processes and compares the results.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from builders import unequal_split
from toy_splits import TASKS
from toy_weightings import Attentive, Uncertainty
from toys import build_config
from train_worker import TOKENIZER, arguments, dealt_out
from trainers import logs_of
from transformers import TrainerCallback
from watched_training import OrderedTrainer, Recorder

from mtl_nlp import MultitaskConfig, MultitaskModel, TaskMixture
from mtl_nlp.balancing.weighting import LossWeighting

STEPS = [list(range(32)), list(range(31, 5, -1)), list(range(6, 32)), list(range(32))]


class Watcher(TrainerCallback):
    """Callback that copies the gradients of a loss weighting before, and its state after every optimizer step."""

    def __init__(self, weighting: LossWeighting) -> None:
        self.weighting = weighting
        self.gradients: list[torch.Tensor] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.gradients.append(self.weighting.log_variances.grad.clone())

    def on_step_end(self, args, state, control, **kwargs):
        self.states.append(copy.deepcopy(self.weighting.state_dict()))


def train(
    folder: str, kind: type[LossWeighting], accumulation: int, dropout: float, resume: str | None = None, **more: Any
) -> dict[str, Any]:
    """Train for four steps on given batches, in which few micro-batches have the rare tasks."""
    settings = arguments(
        folder, max_steps=len(STEPS), gradient_accumulation_steps=accumulation, learning_rate=0.01, **more
    )
    torch.manual_seed(0)
    config = build_config("bert", hidden_dropout_prob=dropout)
    model = MultitaskModel(MultitaskConfig(text_config=config, tasks=[*TASKS.values()]))
    weighting = kind(list(TASKS))
    recorder, watcher = Recorder(), Watcher(weighting)
    trainer = OrderedTrainer(
        model, settings, None, TaskMixture({"d": unequal_split(TOKENIZER)}), None, TOKENIZER,
        callbacks=[recorder, watcher], loss_weighting=weighting,
    )  # fmt: skip
    place = (settings.process_index, settings.world_size, accumulation)
    trainer.batches = [batch for step in STEPS for batch in dealt_out(step, *place)]
    trainer.train(resume_from_checkpoint=resume)
    return {
        "gradients": recorder.gradients,
        "weighting_gradients": watcher.gradients,
        "weights": recorder.weights,
        "states": watcher.states,
        "logs": logs_of(trainer),
    }


def main(folder: str) -> None:
    torch.set_num_threads(1)
    world = arguments(folder).world_size
    found: dict[str, Any] = {"world_size": world}
    for kind in (Uncertainty, Attentive):
        for accumulation in {1: (1, 2, 4), 2: (1, 2)}[world]:
            found[f"{kind.__name__}-{accumulation}"] = train(folder, kind, accumulation, dropout=0.0)
    for accumulation in (1, 2):
        place = f"{folder}/resumed-{accumulation}"
        saving = {"save_strategy": "steps", "save_steps": 2}
        found[f"whole-{accumulation}"] = train(place, Attentive, accumulation, dropout=0.2, **saving)
        checkpoint = f"{place}/run/checkpoint-2"
        found[f"resumed-{accumulation}"] = train(place, Attentive, accumulation, dropout=0.2, resume=checkpoint)
    torch.save(found, Path(folder) / f"rank{arguments(folder).process_index}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
