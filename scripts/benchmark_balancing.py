"""Measure the time of an optimizer step with each method of balancing: python scripts/benchmark_balancing.py weightings

`weightings` compares a step of the trainer with each loss weighting with a plain sum of the losses: forward, backward,
and a step of the same optimizer without the trainer. `gradients` compares a step with gradient methods, and with the
measurement of conflict, with the trainer's step without them: on disjoint rows, where each text has a label of one
task, and on shared rows, where each text has a label of all tasks.

The programs take turns in one process, so that changes in the load of the machine affect all of them alike, and all get
the same batches. The figures are medians of the ratios in the same round.

By default, a random encoder with two small layers shows the highest overhead; `--encoder FOLDER` measures a real one,
such as MiniLM. The script needs neither a network nor data. On a processor, set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from mtl_nlp import (
    MultitaskConfig,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    Regression,
    TaskMixture,
    TextClassification,
    TokenClassification,
    encode,
)
from mtl_nlp.balancing.gradient_methods import build_gradient_method
from mtl_nlp.balancing.registry import WEIGHTINGS, build_weighting
from mtl_nlp.training.callbacks import StepHooks

WORDS = [f"w{number}" for number in range(200)]
LABELS = ["A", "B", "C", "D"]
TASKS = [
    TokenClassification(name="pos", labels=LABELS),
    TokenClassification(name="ner", labels=LABELS),
    TextClassification(name="genre", labels=LABELS),
    Regression(name="score"),
]
PLAIN = "plain sum"
GRADIENTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "pcgrad": {"gradients": "pcgrad"},
    "upgrad": {"gradients": "upgrad"},
    "nash-mtl": {"gradients": "nash-mtl"},
    "graddrop": {"gradients": "graddrop"},
    "conflict in each step": {"conflict_every": 1},
}
"""The sides of `gradients`: a gradient method, or training arguments."""


def build_tokenizer() -> PreTrainedTokenizerBase:
    """Build a tokenizer of words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def build_model(encoder: str | None) -> MultitaskModel:
    """Build a model with all tasks; the same one each time."""
    torch.manual_seed(0)
    if encoder is not None:
        return MultitaskModel.from_encoder(encoder, TASKS)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = AutoConfig.for_model("bert", vocab_size=256, **sizes)
    return MultitaskModel(MultitaskConfig(text_config=config, tasks=TASKS))


def build_mixture(tokenizer: PreTrainedTokenizerBase, rows: int, length: int, *, shared: bool = True) -> TaskMixture:
    """Build a mixture of random texts, each with labels for all tasks, or for one task each."""
    draw = random.Random(0)
    columns: dict[str, list[Any]] = {
        "words": [draw.choices(WORDS, k=length) for _ in range(rows)],
        "pos": [draw.choices(LABELS, k=length) for _ in range(rows)],
        "ner": [draw.choices(LABELS, k=length) for _ in range(rows)],
        "genre": draw.choices(LABELS, k=rows),
        "score": [draw.random() for _ in range(rows)],
    }
    if not shared:
        for number, task in enumerate(TASKS):
            labels_of = columns[task.name]
            columns[task.name] = [label if row % len(TASKS) == number else None for row, label in enumerate(labels_of)]
    labels = {task.name: task.name for task in TASKS}
    options: dict[str, Any] = {"inputs": {"tokens": "words"}, "labels": labels, "tasks": TASKS, "tokenizer": tokenizer}
    return TaskMixture({"random": encode(Dataset.from_dict(columns), **options)})


def step_of(trainer: MultitaskTrainer, batches: list[dict[str, Any]]) -> Callable[[], None]:
    """Return a function that takes an optimizer step of a trainer on the given micro-batches."""
    optimizer, accelerator = trainer.create_optimizer(), trainer.accelerator
    trainer.progress.start(trainer.train_dataset.datasets, None)
    hooks = StepHooks(trainer.step, trainer.watch)
    own = {"model": trainer.model, "optimizer": optimizer}

    def step() -> None:
        drawn, counts = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
        for number, batch in enumerate(drawn, start=1):
            accelerator.gradient_state._set_sync_gradients(number == len(drawn))
            trainer.training_step(trainer.model, batch, counts)
        hooks.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control, **own)
        optimizer.step()
        hooks.on_optimizer_step(trainer.args, trainer.state, trainer.control, **own)
        optimizer.zero_grad()

    return step


def plain_step_of(model: MultitaskModel, batches: list[dict[str, Any]]) -> Callable[[], None]:
    """Return a function that takes an optimizer step on the plain sum of the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    model.train()

    def step() -> None:
        for batch in batches:
            (model(**send_to_device(batch, model.device)).loss / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def trainer_of(options: argparse.Namespace, folder: str, mixture: TaskMixture, **more: Any) -> MultitaskTrainer:
    """Return a trainer.

    Args:
        options: the options of the command line.
        folder: a folder for the trainer.
        mixture: the mixture.
        **more: a loss weighting or gradient method, and further training arguments.
    """
    built = {key: more.pop(key) for key in ("loss_weighting", "gradient_method") if key in more}
    arguments = MultitaskTrainingArguments(
        output_dir=folder, per_device_train_batch_size=options.rows, optim="adamw_torch_fused", report_to="none",
        gradient_accumulation_steps=options.accumulate, disable_tqdm=True, max_steps=1000, **more,
    )  # fmt: skip
    return MultitaskTrainer(
        build_model(options.encoder), arguments, train_dataset=mixture, processing_class=tokenizer_of(options), **built
    )


def tokenizer_of(options: argparse.Namespace) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the encoder."""
    return build_tokenizer() if options.encoder is None else AutoTokenizer.from_pretrained(options.encoder)


def weighting_steps(options: argparse.Namespace, folder: str) -> dict[str, Callable[[], None]]:
    """Return a function per loss weighting, and one for the plain sum, that takes one optimizer step."""
    mixture = build_mixture(tokenizer_of(options), options.rows * options.accumulate, options.length)
    tasks = {task.name: task for task in TASKS}
    steps: dict[str, Callable[[], None]] = {}
    for name in WEIGHTINGS:
        trainer = trainer_of(options, folder, mixture, loss_weighting=build_weighting(name, tasks, {}, {}))
        batches = list(trainer.get_train_dataloader())
        if not steps:
            steps[PLAIN] = plain_step_of(build_model(options.encoder).to(trainer.args.device), batches)
        steps[name] = step_of(trainer, batches)
    return steps


def gradient_steps(options: argparse.Namespace, folder: str, *, shared: bool) -> dict[str, Callable[[], None]]:
    """Return a function per side of `gradients` that takes one optimizer step."""
    mixture = build_mixture(tokenizer_of(options), options.rows * options.accumulate, options.length, shared=shared)
    steps = {}
    for name, side in GRADIENTS.items():
        arguments = {key: value for key, value in side.items() if key != "gradients"}
        if "gradients" in side:
            method = build_gradient_method(side["gradients"], [task.name for task in TASKS], {})
            arguments["gradient_method"] = method
        trainer = trainer_of(options, folder, mixture, **arguments)
        steps[name] = step_of(trainer, list(trainer.get_train_dataloader()))
    return steps


def seconds_of(step: Callable[[], None]) -> float:
    """Return the seconds of one step; without a GPU, the seconds of the processor, whatever else it runs."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def measure(title: str, steps: dict[str, Callable[[], None]], rounds: int, bases: Sequence[str]) -> None:
    """Print the median time of each program, and its ratio to the programs in `bases`."""
    for step in steps.values():
        step()
    found = [{name: seconds_of(step) for name, step in steps.items()} for _ in range(rounds)]
    head = [title, "ms per step", *(f"relative to {base}" for base in bases)]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in steps:
        milliseconds = 1000 * statistics.median(each[name] for each in found)
        ratios = (statistics.median(each[name] / each[base] for each in found) for base in bases)
        print(f"| {name} | {milliseconds:.1f} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("weightings", "gradients"), help="the methods to measure")
    parser.add_argument("--encoder", metavar="FOLDER", help="an encoder (default: a random one with two small layers)")
    parser.add_argument("--rows", type=int, default=16, help="rows of a micro-batch (default: 16)")
    parser.add_argument("--length", type=int, default=24, help="words of a row (default: 24)")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of a step (default: 1)")
    parser.add_argument("--rounds", type=int, default=20, help="steps of each program (default: 20)")
    options = parser.parse_args()
    options.encoder = None if options.encoder is None else str(Path(options.encoder).resolve())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "weightings":
            measure("weighting", weighting_steps(options, folder), options.rounds, (PLAIN, "static"))
            return
        for shared in (False, True):
            steps = gradient_steps(options, folder, shared=shared)
            measure(f"{'shared' if shared else 'disjoint'} rows", steps, options.rounds, (PLAIN,))


if __name__ == "__main__":
    main()
