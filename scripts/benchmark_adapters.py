"""Measure the time and memory that adapters cost: python scripts/benchmark_adapters.py

The model is MiniLM with adapters of r 8 on all linear layers. The measured programs take turns, so that changes in the
load of the machine affect all of them alike; the figures are medians.

- ways: forward and backward of one encoder pass over a batch of 32 texts of 64 sub-words, a quarter of them for each of
  four adapters. The implementation in use and the rejected implementations are compared with the same batch through
  one adapter.
- steps: optimizer steps of recipes/mixed.yaml with the encoder fine-tuned in full, with adapters only, and with both.
  A separate process measures the peak memory of each training: the memory of tensors beyond the loaded weights, as
  counted by torch's profiler; and the memory of the process, most of which is libraries, freed blocks that malloc
  keeps, and oneDNN's kernels for every length of a batch (needs MTL_NLP_DATA).
- tasks: a step of 64 tasks with one adapter each compared with a step of two tasks, with the same rows of two tasks.

The script needs MINILM.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModel
from transformers.utils import logging

from mtl_nlp import MultitaskModel, MultitaskTrainer, Recipe, TextClassification
from mtl_nlp.modeling.lora_multitask import RoutedLinear, adapter_options, inject_adapter
from mtl_nlp.modeling.routing_multitask import Route, routed
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare

ROOT = Path(__file__).parents[1]
ROWS, LENGTH = 32, 64
NAMES = ("a", "b", "c", "d")
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
SIDES: dict[str, dict[str, Any] | None] = {
    "full fine-tuning": None,
    "adapters only": {"r": 8, "target_modules": "all-linear", "train_encoder": False},
    "encoder and adapters": {"r": 8, "target_modules": "all-linear"},
}


def encoder_folder() -> str:
    """Return the encoder of the quickstart."""
    return Recipe.load(ROOT / "recipes" / "quickstart.yaml").encoder


def take_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Measure the seconds of every way in every round, after one warm-up run of each."""
    for run in ways.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def print_ratios(seconds: dict[str, list[float]], base: str) -> None:
    """Print the median time of every way, and the median ratio to the base way in the same round."""
    for name, values in seconds.items():
        ratios = [value / of_base for value, of_base in zip(values, seconds[base], strict=True)]
        print(
            f"| {name} | {1000 * statistics.median(values):.0f} ms | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}) |"
        )


def masked_forward(self: RoutedLinear, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute all adapters as one adapter of rank 4 · 8, and mask the parts that belong to other rows."""
    down = torch.cat([self.lora_A[name].weight for name in NAMES])
    up = torch.cat([self.lora_B[name].weight * self.scaling[name] for name in NAMES], dim=1)
    return self.base_layer(x) + F.linear(F.linear(x, down) * mask, up)


def sliced_forward(self: RoutedLinear, x: torch.Tensor) -> torch.Tensor:
    """Cut out the rows of each adapter, and concatenate the results."""
    parts = [
        F.linear(F.linear(part, self.lora_A[name].weight), self.lora_B[name].weight) * self.scaling[name]
        for name, part in zip(NAMES, x.chunk(len(NAMES)), strict=True)
    ]
    return self.base_layer(x) + torch.cat(parts)


def named_forward(self: RoutedLinear, x: torch.Tensor) -> torch.Tensor:
    """Use `adapter_names`, PEFT's implementation for inference."""
    return self._mixed_batch_forward(x, adapter_names=[name for name in NAMES for _ in range(ROWS // len(NAMES))])


def compare_ways(rounds: int, *, train_encoder: bool) -> None:
    """Print the cost of each way through four adapters."""
    encoder = AutoModel.from_pretrained(encoder_folder(), add_pooling_layer=False, dtype=torch.float32).train()
    encoder.requires_grad_(train_encoder)
    for name in NAMES:
        inject_adapter(encoder, name, adapter_options(encoder, LoraConfig(**LORA)))
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    layers = [module for module in encoder.modules() if isinstance(module, RoutedLinear)]
    input_ids = torch.randint(1000, 20000, (ROWS, LENGTH))
    quarter = ROWS // len(NAMES)
    mask = torch.zeros(ROWS, 1, len(NAMES) * LORA["r"])
    for number in range(len(NAMES)):
        mask[number * quarter : (number + 1) * quarter, :, number * LORA["r"] : (number + 1) * LORA["r"]] = 1.0

    def passes(route: Route, rows: torch.Tensor = input_ids) -> None:
        with routed(route):
            hidden = encoder(input_ids=rows).last_hidden_state
        hidden.pow(2).mean().backward()
        encoder.zero_grad()

    def replaced(forward: Callable[..., torch.Tensor]) -> None:
        for layer in layers:
            layer.forward = types.MethodType(forward, layer)
        encoder(input_ids=input_ids).last_hidden_state.pow(2).mean().backward()
        encoder.zero_grad()
        for layer in layers:
            del layer.forward

    def pass_each() -> None:
        for name, rows in zip(NAMES, input_ids.chunk(len(NAMES)), strict=True):
            passes(Route(((name,),), ()), rows)

    mixed = Route(tuple((name,) for name in NAMES), (quarter,) * len(NAMES))
    ways = {
        "one adapter": lambda: passes(Route(((NAMES[0],),), ())),
        "four adapters, one product per row (used)": lambda: passes(mixed),
        "four adapters, concatenated and masked": lambda: replaced(functools.partial(masked_forward, mask=mask)),
        "four adapters, rows cut out": lambda: replaced(sliced_forward),
        "four adapters, PEFT's adapter_names": lambda: replaced(named_forward),
        "four adapters, one pass per adapter": pass_each,
    }
    print(f"\nencoder {'trained too' if train_encoder else 'frozen'}\n")
    print("| way | step | relative to one adapter |\n|---|---|---|")
    print_ratios(take_turns(ways, rounds), "one adapter")


def build_mixed_trainer(side: str, steps: int) -> MultitaskTrainer:
    """Build a trainer of recipes/mixed.yaml with the adapters of a side."""
    recipe = Recipe.load(ROOT / "recipes" / "mixed.yaml")
    data = recipe.model_dump(exclude_defaults=True)
    data["training"] |= {"max_steps": steps, "eval_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    data |= {} if SIDES[side] is None else {"adapters": SIDES[side]}
    recipe = Recipe.from_dict(data)
    run = prepare(recipe)
    return build_trainer(run, build_model(run), training_arguments(recipe))


def time_training(side: str, steps: int) -> None:
    """Train in this process; print the seconds per step and the peak memory of the process during training in bytes."""
    trainer = build_mixed_trainer(side, steps)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak that was reached while the data were read
    started = time.perf_counter()
    trainer.train()
    seconds = (time.perf_counter() - started) / steps
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print("result", seconds, 1024 * peak)


def watch_tensors(side: str, steps: int) -> None:
    """Train in this process; print the peak of the bytes that tensors hold beyond those before training."""
    trainer = build_mixed_trainer(side, steps)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    print("result", max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"))


def compare_steps(rounds: int, steps: int) -> None:
    """Print the time and memory of a step of mixed.yaml."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            took, peak = results_of("time", side, steps)
            seconds[side].append(took)
            peaks[side].append(peak)
    print("\nmixed.yaml, bf16\n\n| side | step | relative to full fine-tuning |\n|---|---|---|")
    print_ratios(seconds, "full fine-tuning")
    print("\n| side | peak memory of tensors | peak memory of the process |\n|---|---|---|")
    for side in SIDES:
        (tensors,) = results_of("tensors", side, steps)
        low, middle, high = (f(peaks[side]) / 2**20 for f in (min, statistics.median, max))
        print(f"| {side} | {tensors / 2**20:.0f} MiB | {middle:.0f} MiB ({low:.0f}-{high:.0f}) |")


def results_of(what: str, side: str, steps: int) -> list[float]:
    """Train in a separate process and return the figures that it prints."""
    command = [sys.executable, __file__, "--only", what, "--side", side, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = next(line for line in done.stdout.splitlines() if line.startswith("result"))
    return [float(value) for value in result.split()[1:]]


def compare_tasks(rounds: int) -> None:
    """Print the cost of 64 tasks with adapters relative to two tasks, with the same rows for the same two tasks."""
    input_ids = torch.randint(1000, 20000, (ROWS, LENGTH))
    ways: dict[str, Callable[[], None]] = {}
    for number in (2, 64):
        model = MultitaskModel.from_encoder(
            encoder_folder(), [TextClassification(name=f"t{task}", labels=["x", "y"]) for task in range(number)]
        ).train()
        for task in model.tasks:
            model.add_adapter(LoraConfig(**LORA), task)
        rows = {task: torch.zeros(0, dtype=torch.long) for task in model.tasks}
        rows |= {"t0": torch.arange(0, ROWS, 2), "t1": torch.arange(1, ROWS, 2)}
        labels = {task: torch.zeros(len(own), dtype=torch.long) for task, own in rows.items()}

        def step(model: MultitaskModel = model, rows: dict = rows, labels: dict = labels) -> None:
            model(input_ids, rows=rows, labels=labels).loss.backward()
            model.zero_grad()

        ways[f"{number} tasks"] = step
    print("\n| tasks with adapters | forward and backward | relative to 2 tasks |\n|---|---|---|")
    print_ratios(take_turns(ways, rounds), "2 tasks")


TRAININGS = {"time": time_training, "tensors": watch_tensors}


def main() -> None:
    """Run the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("ways", "steps", "tasks", *TRAININGS), help="default: ways, tasks, steps")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60, help="number of optimizer steps of one training")
    parser.add_argument("--side", choices=list(SIDES), default="full fine-tuning", help="for time and tensors")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    if options.only in TRAININGS:
        TRAININGS[options.only](options.side, options.steps)
        return
    if options.only in {None, "ways"}:
        compare_ways(options.rounds, train_encoder=False)
        compare_ways(options.rounds, train_encoder=True)
    if options.only in {None, "tasks"}:
        compare_tasks(options.rounds)
    if options.only in {None, "steps"}:
        compare_steps(max(3, options.rounds // 3), options.steps)


if __name__ == "__main__":
    main()
