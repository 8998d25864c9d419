"""Measure what gradient methods and the measurement of conflict cost: python scripts/benchmark_gradients.py

The model is MiniLM with four tasks, and a batch has 32 texts of 62 words. On disjoint rows, each text has a label of
one task; on shared rows, of all tasks. The sides take turns, and the figures are medians of the time of the processor
on one thread, so that other programs on the machine have little effect. The script needs MINILM.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainerCallback

from mtl_nlp import (
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    Recipe,
    TaskMixture,
    TextClassification,
)
from mtl_nlp.balancing.gradient_methods import build_gradient_method
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import EncodedDataset, encode_dataset

ROOT = Path(__file__).parents[1]
TASKS = {name: TextClassification(name=name, labels=["x", "y"]) for name in ("a", "b", "c", "d")}
ROWS, WORDS = 32, 62
SIDES: dict[str, dict[str, Any]] = {
    "plain sum": {},
    "pcgrad": {"method": "pcgrad"},
    "upgrad": {"method": "upgrad"},
    "nash-mtl": {"method": "nash-mtl"},
    "graddrop": {"method": "graddrop"},
    "conflict in each step": {"conflict_every": 1},
}


class Clock(TrainerCallback):
    """A callback that measures the time of the processor in each optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the time."""
        self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the time."""
        self.seconds.append(time.process_time() - self._start)


def texts(tokenizer: PreTrainedTokenizerBase, *, shared: bool) -> EncodedDataset:
    """Build random texts of equal length, with the labels of all tasks or of one task each."""
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"tokens": [rng.choice(words, size=WORDS).tolist() for _ in range(4 * ROWS)]}
    for number, task in enumerate(TASKS):
        labels = rng.choice(["x", "y"], size=4 * ROWS).tolist()
        columns[task] = [each if shared or row % 4 == number else None for row, each in enumerate(labels)]
    named = {task: task for task in TASKS}
    rows = canonical_rows(Dataset.from_dict(columns), "d", inputs={"tokens": "tokens"}, labels=named, tasks=TASKS)
    return encode_dataset("d", rows, TASKS, tokenizer, reads_words=True, max_length=WORDS + 2)


def measure_gradients(steps: int, rounds: int) -> None:
    """Print the time of a step with each method as a multiple of the plain sum, on disjoint and on shared rows."""
    encoder = Recipe.load(ROOT / "recipes" / "quickstart.yaml").encoder
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = MultitaskModel.from_encoder(encoder, list(TASKS.values()))
    for shared in (False, True):
        split = texts(tokenizer, shared=shared)
        found: dict[str, list[float]] = {name: [] for name in SIDES}
        for _ in range(rounds):
            for name, side in SIDES.items():
                found[name] += seconds_of(model, tokenizer, split, steps, **side)
        plain = statistics.median(found["plain sum"])
        print(f"{'shared' if shared else 'disjoint'} rows: {plain:.2f} s a step with the plain sum")
        for name in SIDES:
            times = statistics.median(found[name]) / plain
            more = f"; every 100 steps: {times - 1:.1f} % more" if "conflict_every" in SIDES[name] else ""
            print(f"  {name:24} {times:.2f} times the time{more}")


def seconds_of(
    model: MultitaskModel,
    tokenizer: PreTrainedTokenizerBase,
    split: EncodedDataset,
    steps: int,
    method: str | None = None,
    **arguments: Any,
) -> list[float]:
    """Return the seconds of each step of a short training, without the first step."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = MultitaskTrainingArguments(
            output_dir=folder, max_steps=steps + 1, per_device_train_batch_size=ROWS, save_strategy="no",
            disable_tqdm=True, logging_strategy="no", **arguments,
        )  # fmt: skip
        built = None if method is None else build_gradient_method(method, TASKS, {})
        trainer = MultitaskTrainer(
            model, settings, tokenizer, TaskMixture({"d": split}), callbacks=[clock], gradient_method=built
        )
        trainer.train()
    return clock.seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps of each side in a round (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure_gradients(options.steps, options.rounds)


if __name__ == "__main__":
    main()
