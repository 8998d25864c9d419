"""The cost of whole processes: two processes against one, peak memory, and the planning of many rows; tasknet."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, DatasetDict

from benchmarks.measuring import ROOT, Figure, Setting, figure, memory, ratio, run_program, seconds, take_turns
from benchmarks.subjects import NOTHING_WRITTEN, real_encoder, recipe_of, run_of, stock_trainer, trainer_of
from mtl_nlp import TaskMixture
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run_folder import TRAINING_LOG_NAME


def processes(setting: Setting) -> Iterator[Figure]:
    """Compare two processes with one thread each with one process with two threads, on the same rows at every step."""
    for batch, bar in setting.size(((32, ">= 0.9"), (64, ">= 0.9")), ((4, ""),)):
        found = take_turns(
            {
                "one": partial(_rows_per_second, setting, 1, 2 * batch),
                "two": partial(_rows_per_second, setting, 2, batch),
            },
            setting.repeat,
            warm_up=False,
        )
        how = f"ewt.yaml on the CPU, {setting.steps} steps, 2 x {batch} rows against 1 x {2 * batch}"
        yield ratio(f"rows per second, 2 processes / 1, {batch} rows each", found["two"], found["one"], bar, how)


def _rows_per_second(setting: Setting, count: int, batch: int) -> float:
    """Train in `count` processes on two cores. The time is that of Trainer's clock, which starts after loading."""
    folder = setting.folder / f"processes{count}"
    training = {"max_steps": setting.steps, "per_device_train_batch_size": batch, "use_cpu": True}
    recipe = recipe_of(setting, real_encoder(setting), **training).model_dump(exclude_defaults=True)
    file = setting.folder / "processes.yaml"
    file.write_text(yaml.safe_dump({**recipe, "output_dir": str(folder)}))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    run_program(
        [*launcher, "-m", "mtl_nlp", "train", str(file), "--overwrite"],
        ACCELERATE_USE_CPU="true",
        OMP_NUM_THREADS=str(2 // count),
    )
    log = [json.loads(line) for line in (folder / TRAINING_LOG_NAME).read_text().splitlines()]
    return setting.steps * count * batch / next(entry["train_runtime"] for entry in log if "train_runtime" in entry)


def peak_memory(setting: Setting) -> Iterator[Figure]:
    """Compare the peak memory of the process of a joint training with that of the largest stock run."""
    tasks = list(recipe_of(setting, real_encoder(setting)).tasks)
    sides = ["joint, fp32", "joint, defaults", "adapters, defaults", *tasks]
    found = {side: [_in_process("memory", setting, side) for _ in range(setting.size(1, 1))] for side in sides}
    largest = max(tasks, key=lambda task: found[task][0])
    how = f"VmHWM over {setting.steps} steps of batches of 32, each in a process of its own"
    for side, values in found.items():
        bar = "<= 2560" if side in sides[1:3] else ""
        yield figure(f"peak of the process, {f'stock, {side}' if side in tasks else side}", values, "MiB", bar, how)
    yield ratio("peak, joint in fp32 / largest stock run", found[sides[0]], found[largest], "<= 1.1", how)


def _in_process(name: str, setting: Setting, *arguments: str) -> float:
    """Run one of `CHILDREN` in a separate process, and return the number that it prints last."""
    command = [str(ROOT / "scripts/benchmark.py"), "--child", name, *arguments, "--steps", str(setting.steps)]
    command += ["--tiny"] * setting.tiny
    return float(run_program(command).split()[-1])


def train_and_print_memory(setting: Setting, side: str) -> None:
    """Train one side of `peak_memory` in this process, and print the peak of its memory in MiB."""
    precision = {"bf16": False if side == "joint, fp32" else None}
    training = {"max_steps": setting.steps, "per_device_train_batch_size": 32}
    recipe = recipe_of(setting, real_encoder(setting), **precision | training)
    if side.startswith("adapters"):
        data = recipe.model_dump(exclude_defaults=True)
        section = {"r": 8, "target_modules": "all-linear", "train_encoder": False}
        recipe = type(recipe).from_dict({**data, "adapters": section})
    run = prepare(recipe)
    trainer: Any = stock_trainer(run, side, setting.folder, **training) if side in run.tasks else trainer_of(run)
    trainer.train()
    print(memory("VmHWM"))


def planning(setting: Setting) -> Iterator[Figure]:
    """Measure the time and memory of planning an epoch of many rows, in a process of its own."""
    names = ("rows", "planning", "first batch", "speed", "memory, planned", "memory, drawn")
    command = [str(ROOT / "scripts/benchmark.py"), "--child", "planning", *["--tiny"] * setting.tiny]
    turns = [json.loads(run_program(command).splitlines()[-1]) for _ in range(setting.size(3, 1))]
    columns = dict(zip(names, zip(*turns, strict=True), strict=True))
    how = f"100 datasets, {columns['rows'][0]:,} rows, T = 2, batch 32"
    yield figure("plan an epoch", columns["planning"], "s", "<= 5", f"the counts of all windows; {how}")
    yield figure("first batch of this epoch", columns["first batch"], "s", "<= 5", how)
    yield figure("rows per second of the sampler", columns["speed"], "rows/s", ">= 20000", how)
    above = "peak above the memory with the lengths of the rows"
    yield figure("memory of planning", columns["memory, planned"], "MiB", "<= 500", above)
    yield figure("memory of drawing the epoch", columns["memory, drawn"], "MiB", "<= 500", above)


def plan_and_print(setting: Setting) -> None:
    """Plan an epoch of many rows, and print the figures of `planning`."""
    # A geometric progression that stops growing at a million rows.
    sizes = np.geomspace(1, *setting.size((8.53e6, 100), (1e3, 10))).clip(max=1e6).round().astype(int)
    rng = np.random.default_rng(0)
    rows_of = [rng.integers(5, 129, size, dtype=np.int32) for size in sizes]
    # The mixture and the sampler read only the lengths of rows.
    parts = {
        f"d{n}": EncodedDataset(f"d{n}", Dataset.from_dict({"length": of}), {}, 0, 0, f"{n}")
        for n, of in enumerate(rows_of)
    }
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    started = time.perf_counter()
    mixture = TaskMixture(parts, temperature=2.0)
    planned = 0
    for window in MixtureBatchSampler(mixture, 32).windows():
        planned += int(window.counts.sum())
        if planned >= len(mixture):
            break
    took, of_plan = time.perf_counter() - started, memory("VmHWM") - before
    started = time.perf_counter()
    batches = iter(MixtureBatchSampler(mixture, 32))
    rows = len(next(batches))
    first = time.perf_counter() - started
    rows += sum(len(batch) for batch in batches)
    speed = rows / (time.perf_counter() - started)
    if not planned == rows == len(mixture):
        raise RuntimeError(f"An epoch should have {len(mixture)} rows. Found {planned} planned and {rows} yielded.")
    print(json.dumps([rows, took, first, speed, of_plan, memory("VmHWM") - before]))


def tasknet(setting: Setting) -> Iterator[Figure]:
    """Compare the seconds for each labelled row with those of tasknet, if that is installed."""
    if importlib.util.find_spec("tasknet") is None:
        yield Figure("tasknet", *[float("nan")] * 3, how="tasknet is not installed in this environment")
        return
    import tasknet as other  # type: ignore[import-not-found,unused-ignore]

    for name, bar in (("ewt", "<= 0.2"), ("mixed", "<= 0.6")):
        training = {"num_train_epochs": 1, "per_device_train_batch_size": 32, "bf16": False}
        run = run_of(setting, real_encoder(setting), name=name, rows=setting.rows, **training)
        trainer = trainer_of(run)
        labelled = sum(of.num_rows - of.missing(task) for of in run.splits["train"].values() for task in of.feeds)
        tasks = [_of_tasknet(other, run, task) for task in run.tasks]
        arguments = {"model_name": run.recipe.encoder, "learning_rate": 2e-4, **training, **NOTHING_WRITTEN}
        model = other.Model(tasks, SimpleNamespace(**arguments))
        theirs = other.Trainer(model, tasks, SimpleNamespace(**arguments))
        found = take_turns(
            {
                "own": partial(seconds, trainer.train),
                "tasknet": partial(seconds, theirs.train),
            },
            setting.repeat,
            warm_up=False,
        )
        how = f"{labelled:,} labelled rows, batch 32, fp32, one epoch of each side"
        yield ratio(f"seconds a labelled row, own / tasknet, {name}.yaml", found["own"], found["tasknet"], bar, how)


def _of_tasknet(other: Any, run: Any, task: str) -> Any:
    """Return a task of tasknet with the training rows of the first dataset that feeds the task."""
    encoded = next(of for of in run.splits["train"].values() if task in of.feeds)
    labels, spaces = encoded.references[task], run.tasks[task].labels
    numbered = [[spaces.index(each) for each in row] if isinstance(row, list) else spaces.index(row) for row in labels]
    inputs = {name: list(column) for name, column in encoded.inputs.items()}
    rows = DatasetDict({split: Dataset.from_dict({**inputs, "y": numbered}) for split in ("train", "validation")})
    if run.tasks[task].kind.labels_words:
        return other.TokenClassification(dataset=rows, tokens="tokens", y="y", name=task)
    text = "text" if "text" in inputs else "tokens"
    rows = rows.map(lambda row: {"sentence": row[text] if isinstance(row[text], str) else " ".join(row[text])})
    return other.Classification(dataset=rows, s1="sentence", y="y", name=task)


CHILDREN = {"memory": train_and_print_memory, "planning": plan_and_print}
"""The measurements that need a process of their own."""
