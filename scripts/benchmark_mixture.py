"""Measure the cost of mixing (planning, many heads, padding, processes), and print a Markdown table with bars.

    python scripts/benchmark_mixture.py                            all figures, on an otherwise idle machine
    python scripts/benchmark_mixture.py --only sampler padding
    python scripts/benchmark_mixture.py --only step --bf16         on the accelerator if there is one

`padding` and `processes` need MTL_NLP_DATA (see recipes/ewt.yaml and recipes/mixed.yaml). All measurements except
`sampler` need MiniLM, from the Hub or from the folder in MINILM. `sampler` reads its memory from /proc and needs Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.utils import logging

from mtl_nlp import MultitaskModel, Recipe, Task, TaskMixture, TextClassification, TokenClassification, load_tokenizer
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.from_python import encode
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run_folder import TRAINING_LOG_NAME
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.schedule import batch_sampler
from mtl_nlp.training.trainer import MultitaskTrainer

ROOT = Path(__file__).parents[1]
ENCODER = os.environ.get("MINILM", "sentence-transformers/all-MiniLM-L6-v2")
BATCH = 32
SUB_WORDS = 64
TASKS = 64
BLOCK = 2


def line(name: str, measured: str, value: float, sign: str, bar: float, form: str) -> str:
    """Return a line of the table.

    Args:
        name: the figure.
        measured: how the figure was measured.
        value: the value.
        sign: `<=` or `>=`, the required relation of the value to the bar.
        bar: the bar.
        form: the format of the value and the bar.
    """
    met = value <= bar if sign == "<=" else value >= bar
    return f"| {name} | {measured} | {form.format(value)} | {sign} {form.format(bar)} | {'yes' if met else 'no'} |"


def sampler() -> list[str]:
    """Measure the time and memory of planning, and the rows per second. Run this function in a separate process."""
    imports = _memory("VmRSS")
    # A geometric progression that stops growing at a million rows.
    sizes = np.geomspace(1, 8.53e6, 100).clip(max=1e6).round().astype(int)
    rng = np.random.default_rng(0)
    rows_of = [rng.integers(5, 129, size, dtype=np.int32) for size in sizes]
    # The attributes of a dataset that the mixture and the sampler read.
    parts = {f"d{n}": SimpleNamespace(num_windows=len(of), lengths=of, windows=None) for n, of in enumerate(rows_of)}
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak

    started = time.perf_counter()
    mixture = TaskMixture(cast(dict[str, EncodedDataset], parts), temperature=2.0)
    planned = 0
    for window in MixtureBatchSampler(mixture, BATCH).windows():
        planned += int(window.counts.sum())
        if planned >= len(mixture):
            break
    planning, planning_memory = time.perf_counter() - started, _memory("VmHWM") - before

    started = time.perf_counter()
    batches = iter(MixtureBatchSampler(mixture, BATCH))
    rows = len(next(batches))
    first = time.perf_counter() - started
    rows += sum(len(batch) for batch in batches)
    speed, epoch_memory = rows / (time.perf_counter() - started), _memory("VmHWM") - before
    if not planned == rows == len(mixture):
        raise RuntimeError(f"An epoch should have {len(mixture)} rows. Found {planned} planned and {rows} yielded.")

    of = f"{len(sizes)} datasets of {sizes.min()} to {sizes.max():,} rows, {rows:,} in total, T=2, batch {BATCH}"
    above = f"peak above the memory before (imports {imports:.0f} MB, lengths of rows {before - imports:.0f} MB)"
    return [
        line("plan an epoch", f"mixture, sampler, the counts of all windows; {of}", planning, "<=", 5, "{:.2f} s"),
        line("first batch", "a new sampler of that mixture, to the first batch", first, "<=", 5, "{:.2f} s"),
        line("memory, planning", f"mixture, sampler, all windows: {above}", planning_memory, "<=", 500, "{:.0f} MB"),
        line("memory, epoch", "the same, after all batches were drawn", epoch_memory, "<=", 500, "{:.0f} MB"),
        line("rows per second", "all batches of the epoch, one process", speed, ">=", 20_000, "{:,.0f}"),
    ]


def _memory(field: str) -> float:
    """Return the memory of this process in MB, now (VmRSS) or at its peak (VmHWM)."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def step(steps: int, bf16: bool) -> list[str]:
    """Compare a complete training step with 64 heads and a step with 2 heads, in turns of a few steps."""
    figures = []
    for labels in (1, 2):
        trainers = {tasks: _trainer(tasks, labels, bf16) for tasks in (2, TASKS)}
        seconds: dict[int, list[float]] = {tasks: [] for tasks in trainers}
        for block in range(1 + -(-steps // BLOCK)):
            for tasks, (trainer, clock) in trainers.items():
                clock.ends.clear()
                trainer.train()
                if block > 0:  # the first block warms up
                    seconds[tasks] += np.diff(clock.ends).tolist()
        few, many = statistics.median(seconds[2]), statistics.median(seconds[TASKS])
        where = f"{trainers[2][0].args.device.type}, {'bf16' if bf16 else 'fp32'}, {BATCH} x {SUB_WORDS}"
        rows = next(iter(trainers[TASKS][0].get_train_dataloader()))["rows"]
        batch = f"{labels} label(s) per row, rows of {sum(len(of) > 0 for of in rows.values())} tasks in a batch"
        timed = f"medians of {len(seconds[2])} steps, {1000 * many:.1f} and {1000 * few:.1f} ms"
        figures.append(line("step, 64 tasks against 2", f"{where}, {batch}; {timed}", many / few, "<=", 1.15, "{:.3f}"))
    return figures


class _Clock(TrainerCallback):
    """The times at which steps end. The time between two ends includes fetching and collating the rows of the step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the device, then note the time."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())


def _trainer(count: int, labels_per_row: int, bf16: bool) -> tuple[MultitaskTrainer, _Clock]:
    """Build a trainer of `count` tasks, half of them on words and half on texts.

    There is one dataset per task, or one dataset per two tasks. All datasets have the same size, and a window is just
    long enough to draw one row of each of 64 (or 32) datasets. The number of tasks in a batch is therefore fixed.
    """
    tokenizer = load_tokenizer(ENCODER, reads_words=True)
    tasks: list[Task] = []
    for number in range(count // 2):
        tasks.append(TokenClassification(name=f"words{number}", labels=tuple(f"w{label}" for label in range(17))))
        tasks.append(TextClassification(name=f"text{number}", labels=tuple(f"t{label}" for label in range(8))))
    groups = [tasks[start : start + labels_per_row] for start in range(0, count, labels_per_row)]
    rows = TASKS * BATCH // len(groups)
    parts = {f"d{number}": _random_rows(fed, tasks, rows, number, tokenizer) for number, fed in enumerate(groups)}
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = MultitaskTrainingArguments(folder, bf16=bf16, save_strategy="no", logging_strategy="no")
        arguments.per_device_train_batch_size, arguments.max_steps, arguments.disable_tqdm = BATCH, BLOCK + 1, True
        trainer = MultitaskTrainer(
            model=MultitaskModel.from_encoder(ENCODER, tasks),
            args=arguments,
            processing_class=tokenizer,
            train_dataset=TaskMixture(parts, length_window=TASKS // labels_per_row // BATCH),
            callbacks=[clock],
        )
    trainer.remove_callback(PrinterCallback)
    return trainer, clock


def _random_rows(
    fed: list[Task], tasks: list[Task], rows: int, seed: int, tokenizer: PreTrainedTokenizerBase
) -> EncodedDataset:
    """Return rows of random words of one sub-word each, with random labels for the tasks in `fed`."""
    rng = np.random.default_rng(seed)
    vocabulary = sorted(word for word in tokenizer.get_vocab() if re.fullmatch("[a-z]+", word))
    shape = (rows, SUB_WORDS - tokenizer.num_special_tokens_to_add())
    columns = {"tokens": rng.choice(vocabulary, shape).tolist()}
    for task in fed:
        columns[task.name] = rng.choice(task.labels, shape if task.kind.level == "token" else rows).tolist()
    labels = {task.name: task.name for task in fed}
    raw = datasets.Dataset.from_dict(columns)
    encoded = encode(raw, inputs={"tokens": "tokens"}, labels=labels, tasks=tasks, tokenizer=tokenizer)
    if not (encoded.lengths == SUB_WORDS).all():
        raise RuntimeError(f"Rows should have {SUB_WORDS} sub-words. Found {encoded.lengths.max()}.")
    return encoded


def padding() -> list[str]:
    """Measure the share of padding in the batches of an epoch, and in batches of the same rows in random order."""
    figures = []
    for name, bar in (("ewt", 0.08), ("mixed", 0.15)):
        recipe = Recipe.load(ROOT / f"recipes/{name}.yaml", [f"training.per_device_train_batch_size={BATCH}"])
        mixture = prepare(recipe).mixture
        batches = list(batch_sampler(mixture, training_arguments(recipe)))
        rows = np.random.default_rng(0).permutation(np.concatenate(batches))
        shuffled = _padding(mixture, np.split(rows, range(BATCH, len(rows), BATCH)))
        measured = f"first epoch, {len(rows):,} rows, batch {BATCH}; the same rows in random order: {shuffled:.1%}"
        figures.append(line(f"padding, {name}.yaml", measured, _padding(mixture, batches), "<=", bar, "{:.1%}"))
    return figures


def _padding(mixture: TaskMixture, batches: Iterable[Any]) -> float:
    lengths = [mixture.lengths[batch] for batch in batches]
    return 1 - sum(int(of.sum()) for of in lengths) / sum(int(of.max()) * len(of) for of in lengths)


def processes(steps: int, rounds: int) -> list[str]:
    """Compare two processes with one thread each and one process with two threads, on the same rows at every step.

    The figures are rows per second, at three sizes: each of the two processes takes the batch of the recipe, as in a
    launch of the recipe, or twice or half of it. The gradients of all weights are added up after each step, so the
    share of this cost is larger for smaller steps.
    """
    return [_processes(batch, steps, rounds) for batch in (2 * BATCH, BATCH, BATCH // 2)]


def _processes(batch: int, steps: int, rounds: int) -> str:
    pairs = [(_rows_per_second(1, 2 * batch, steps), _rows_per_second(2, batch, steps)) for _ in range(rounds)]
    ratios = [second / first for first, second in pairs]
    one, two = (statistics.median(values) for values in zip(*pairs, strict=True))
    found = f"2 x {batch} rows, one thread each: {two:.1f} rows/s; 1 x {2 * batch} rows, 2 threads: {one:.1f} rows/s"
    measured = f"recipes/ewt.yaml on the processor, {steps} steps; {found}; all ratios: {np.round(ratios, 3)}"
    return line(f"2 processes of {batch} rows against 1", measured, statistics.median(ratios), ">=", 0.9, "{:.3f}")


def _rows_per_second(count: int, batch: int, steps: int) -> float:
    """Train in `count` processes on 2 cores. The time is that of Trainer's clock, which starts after loading."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, "-m", "mtl_nlp", "train", str(ROOT / "recipes/ewt.yaml")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(2 // count)}
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"output_dir={folder}", f"training.max_steps={steps}", "training.eval_strategy=no"]
        settings += [f"training.per_device_train_batch_size={batch}", "training.use_cpu=true"]
        for setting in (*settings, "training.disable_tqdm=true"):
            command += ["--set", setting]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        log = [json.loads(line) for line in (Path(folder) / TRAINING_LOG_NAME).read_text().splitlines()]
    return steps * count * batch / next(entry["train_runtime"] for entry in log if "train_runtime" in entry)


def main() -> None:
    """Run the requested measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("sampler", "step", "padding", "processes")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--steps", type=int, default=40, help="number of timed steps of each model in `step`")
    parser.add_argument("--bf16", action="store_true", help="use bf16 autocast in `step`")
    parser.add_argument("--process-steps", type=int, default=40, help="number of steps of each training in `processes`")
    parser.add_argument("--rounds", type=int, default=3, help="number of trainings of each kind in `processes`")
    options = parser.parse_args()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.get_num_threads()} threads\n")
    print("| figure | measured | value | bar | met |\n|---|---|---|---|---|", flush=True)
    for name in options.only:
        lines: list[str] = []
        if name == "sampler":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                lines = pool.submit(sampler).result()
        elif name == "step":
            lines = step(options.steps, options.bf16)
        elif "MTL_NLP_DATA" not in os.environ:
            print(f"| {name} | skipped: MTL_NLP_DATA is not set | | | |")
        elif name == "padding":
            lines = padding()
        else:
            lines = processes(options.process_steps, options.rounds)
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)


if __name__ == "__main__":
    main()
