"""Train until a loss or gradient overflows in one of several processes: `diverging_worker.py TOKENIZER FOLDER`.

test_divergence.py starts the script with 1 and 2 processes and compares the errors and weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from builders import build_adapted_model, build_model, unequal_split
from toy_splits import split_with_bad_row
from toy_weightings import Attentive
from train_worker import TOKENIZER, arguments
from watched_training import Recorder

from mtl_nlp import MultitaskModel, MultitaskTrainer, TaskMixture
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.errors import RunError


def spoil_gradient(model: MultitaskModel, call: int, rank: int) -> None:
    """Let the gradient of a weight overflow in one backward pass of one process."""
    passes: list[int] = []

    def add(gradient: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return gradient * float("inf") if len(passes) == call and rank == 0 else gradient

    next(weight for name, weight in model.named_parameters() if "layer.0" in name).register_hook(add)


def train(
    folder: str, *, spoils: bool = False, model: MultitaskModel | None = None,
    weighting: LossWeighting | None = None, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    settings = arguments(folder, **{"num_train_epochs": 2, "per_device_train_batch_size": 1, **changes})
    model, recorder = model or build_model(), Recorder()
    split = unequal_split(TOKENIZER) if spoils else split_with_bad_row(TOKENIZER)
    if spoils:
        spoil_gradient(model, 3, settings.process_index)
    mixture = TaskMixture({"d": split})
    trainer = MultitaskTrainer(
        model,
        settings,
        train_dataset=mixture,
        processing_class=TOKENIZER,
        callbacks=[recorder],
        loss_weighting=weighting,
    )
    message = ""
    try:
        trainer.train()
    except RunError as error:
        message = str(error)
    return {
        "message": message,
        "start": recorder.start,
        "before": recorder.weights,
        "weights": trainer.model.state_dict(),
        "steps": trainer.state.global_step,
        "skipped": trainer.describe_training().get("skipped"),
        "checkpoints": sorted(path.name for path in Path(settings.output_dir).glob("checkpoint-*")),
    }


def main(folder: str) -> None:
    torch.set_num_threads(1)
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_strategy": "no"}
    found = {
        "loss": train(f"{folder}/loss", logging_steps=6),
        "saving": train(f"{folder}/saving", **saving),
        "no-log": train(f"{folder}/no-log", logging_strategy="no", gradient_accumulation_steps=2),
        "adapters": train(f"{folder}/adapters", model=build_adapted_model(), logging_steps=4),
        "weighting": train(f"{folder}/weighting", weighting=Attentive(["pos", "ner", "topic", "score"])),
        "gradient": train(f"{folder}/gradient", spoils=True, max_steps=8, logging_steps=4),
        **{
            f"skip {name}": train(f"{folder}/skip-{name}", on_nonfinite="skip", **settings)
            for name, settings in {
                "loss": {"per_device_train_batch_size": 2, "logging_steps": 1},
                "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
                "adapters": {"per_device_train_batch_size": 2, "model": build_adapted_model()},
                "weighting": {
                    "per_device_train_batch_size": 2,
                    "weighting": Attentive(["pos", "ner", "topic", "score"]),
                },
                "gradient": {"spoils": True, "max_steps": 4},
                "ten": {"per_device_train_batch_size": 12, "num_train_epochs": 12},
            }.items()
        },
    }
    torch.save(found, Path(folder) / f"rank{arguments(folder).process_index}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
