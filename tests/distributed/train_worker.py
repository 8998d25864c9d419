"""Train and evaluate in one of several processes, and write the results: `train_worker.py TOKENIZER FOLDER`.

test_data_parallel.py starts the script with 1, 2 and 3 processes and compares the results.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builders import PULL, build_adapted_model, build_model, evaluated_splits, mixed_splits, unequal_split
from torch.nn.parallel import DistributedDataParallel
from trainers import logs_of
from transformers import AutoTokenizer
from watched_training import OrderedTrainer, Recorder

from mtl_nlp import EncodedDataset, MultitaskModel, MultitaskTrainer, MultitaskTrainingArguments, TaskMixture
from mtl_nlp.evaluation.predictions import predictions_of

TOKENIZER = AutoTokenizer.from_pretrained(sys.argv[1])


class RecordingMixture(TaskMixture):
    """A mixture that records the rows that this process fetches."""

    def __init__(self, datasets: dict[str, EncodedDataset], **settings: Any) -> None:
        super().__init__(datasets, **settings)
        self.fetched: list[list[int]] = []

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        self.fetched.append(list(indices))
        return super().__getitems__(indices)


def arguments(folder: str, **changes: Any) -> MultitaskTrainingArguments:
    defaults = {
        "output_dir": f"{folder}/run", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1,
        "learning_rate": 1e-3, "weight_decay": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
        # The tolerances of the tests are those of one rate: a higher one would enlarge the rounding errors.
        "head_learning_rate": 1e-3,
        # The gradient of a key's bias is rounding error only: with Trainer's 1e-8, AdamW would take steps on it.
        "adam_epsilon": 1e-6,
    }  # fmt: skip
    return MultitaskTrainingArguments(**{**defaults, **changes})


def found_in(trainer: MultitaskTrainer, recorder: Recorder) -> dict[str, Any]:
    wrapped = trainer.model_wrapped
    is_wrapped = isinstance(wrapped, DistributedDataParallel)
    return {
        "world_size": trainer.args.world_size,
        "wrapped": is_wrapped,
        "find_unused_parameters": is_wrapped and wrapped.find_unused_parameters,
        "checkpointing": trainer.model.encoder.is_activation_checkpointing,
        "start": recorder.start,
        "gradients": recorder.gradients,
        "weights": recorder.weights,
        "logs": logs_of(trainer),
        "evaluations": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
    }


def dealt_out(rows: Sequence[int], rank: int, processes: int, accumulation: int) -> list[list[int]]:
    """Return the micro-batches of this process in a step; neighbours stay together, so few have the rare tasks."""
    return [part.tolist() for part in np.array_split(rows, processes * accumulation)][rank::processes]


def train_on_given_batches(
    folder: str, accumulation: int, model: MultitaskModel | None = None, **changes: Any
) -> dict[str, Any]:
    """Train for three steps: on all rows, then twice on the rows without a topic."""
    settings = arguments(folder, max_steps=3, gradient_accumulation_steps=accumulation, **changes)
    recorder, split = Recorder(), unequal_split(TOKENIZER)
    mixture = TaskMixture({"d": split})
    trainer = OrderedTrainer(model or build_model(), settings, None, mixture, None, TOKENIZER, callbacks=[recorder])
    steps = [list(range(32)), list(range(31, 5, -1)), list(range(6, 32))]
    place = (settings.process_index, settings.world_size, accumulation)
    trainer.batches = [batch for step in steps for batch in dealt_out(step, *place)]
    trainer.train()
    first = [trainer.data_collator(trainer.train_dataset.__getitems__(batch)) for batch in trainer.batches]
    tasks = [{task: len(rows) for task, rows in batch["rows"].items()} for batch in first[:accumulation]]
    return {**found_in(trainer, recorder), "sizes": [len(batch["input_ids"]) for batch in first], "task_rows": tasks}


def train_on_the_mixture(
    folder: str, rows: int, mixture: dict[str, Any], model: MultitaskModel | None = None, **changes: Any
) -> dict[str, Any]:
    """Train on a mixture as a user does, with `rows` rows per step over all processes."""
    probe = arguments(folder)
    settings = arguments(folder, per_device_train_batch_size=rows // probe.world_size, **changes)
    recorder, data = Recorder(), RecordingMixture(mixed_splits(TOKENIZER), length_window=2, **mixture)
    evaluated = evaluated_splits(TOKENIZER)["two"]
    trainer = MultitaskTrainer(model or build_model(), settings, None, data, evaluated, TOKENIZER, callbacks=[recorder])
    trainer.train()
    return {**found_in(trainer, recorder), "fetched": data.fetched, "lengths": data.lengths.tolist()}


def evaluate(folder: str) -> dict[str, Any]:
    settings = arguments(folder, per_device_eval_batch_size=2)
    trainer = MultitaskTrainer(build_model(std=0.3), settings, processing_class=TOKENIZER)
    found: dict[str, Any] = {"world_size": settings.world_size, "metrics": {}, "predictions": {}, "lines": {}}
    for name, split in evaluated_splits(TOKENIZER).items():
        metrics = trainer.evaluate(split)
        found["metrics"][name] = {k: v for k, v in metrics.items() if "runtime" not in k and "per_second" not in k}
        lines = predictions_of(trainer.answer(split), split, "test")
        found["lines"][name] = [dataclasses.asdict(line) for line in lines]
        found["predictions"][name] = {data: trainer.predict_rows(encoded) for data, encoded in split.items()}
    return found


def train_adapters(folder: str, world: int) -> dict[str, Any]:
    """Train models with adapters."""
    found = {}
    checkpointing = {"activation_checkpointing": True}
    for accumulation in {1: (1, 3), 2: (1, 2), 3: (1,)}[world]:
        for name, settings in (("adapters", {}), ("adapters-pull", {"adapter_pull": PULL})):
            found[f"{name}-{accumulation}"] = train_on_given_batches(
                folder, accumulation, build_adapted_model(), **settings
            )
        for name, settings in (("frozen", {}), ("frozen-checkpointing", checkpointing)):
            model = build_adapted_model(train_encoder=False)
            found[f"{name}-{accumulation}"] = train_on_given_batches(folder, accumulation, model, **settings)
    found["adapters-checkpointing-1"] = train_on_given_batches(folder, 1, build_adapted_model(), **checkpointing)
    if world < 3:  # one pass per adapter
        for name, settings in (("dora", {}), ("dora-checkpointing", checkpointing)):
            found[f"{name}-1"] = train_on_given_batches(folder, 1, build_adapted_model(use_dora=True), **settings)
    for rows in {1: (32, 33), 2: (32,), 3: (33,)}[world]:
        for batching, settings in (("homogeneous", {}), ("mixed", {"adapter_pull": PULL, "logging_steps": 2})):
            found[f"adapters-mixture-{rows}-{batching}"] = train_on_the_mixture(
                folder, rows, {"batching": batching}, build_adapted_model(), max_steps=5, **settings
            )
    return found


def main(folder: str) -> None:
    torch.set_num_threads(1)
    world = arguments(folder).world_size
    found: dict[str, Any] = {
        "world_size": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    }
    for accumulation in {1: (1, 2, 3, 4), 2: (1, 2), 3: (1,)}[world]:
        found[f"given-{accumulation}"] = train_on_given_batches(folder, accumulation)
        found[f"given-{accumulation}-checkpointing"] = train_on_given_batches(
            folder, accumulation, activation_checkpointing=True
        )
    found["given-1-weighted"] = train_on_given_batches(
        folder, 1, loss_scale="per_task", loss_weights={"pos": 0.3, "score": 2.0}
    )
    for rows in {1: (32, 33), 2: (32,), 3: (33,)}[world]:
        for batching in ("mixed", "homogeneous"):
            found[f"mixture-{rows}-{batching}"] = train_on_the_mixture(
                folder, rows, {"batching": batching, "temperature": 2.0}, max_steps=5, logging_steps=2
            )
    found["epochs"] = train_on_the_mixture(folder, 4 * world, {}, num_train_epochs=2, learning_rate=0.0)
    if world < 3:
        low = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 3}
        found["mixture-32-single"] = train_on_the_mixture(folder, 32, {}, **low)
        found["mixture-32-bf16"] = train_on_the_mixture(folder, 32, {}, bf16=True, **low)
    found |= train_adapters(folder, world)
    found["evaluation"] = evaluate(folder)
    torch.save(found, Path(folder) / f"rank{arguments(folder).process_index}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
