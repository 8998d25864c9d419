"""Figures, and the measuring of several programs in turns."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

ROOT = Path(__file__).parents[2]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Setting:
    """The sizes of all measurements, and the folder for their files.

    Attributes:
        folder: a temporary folder.
        repeat: number of measured turns of every side, after one turn that is not counted.
        tiny: whether the sizes only show that the measurements work.
        encoder: the folder of a pretrained encoder; None for random weights only.
        rows: number of training rows in `joint`.
        epochs: number of passes over these rows on both sides.
        steps: number of optimizer steps in `memory` and `processes`.
    """

    folder: Path
    repeat: int
    tiny: bool
    encoder: str | None
    rows: int
    epochs: float
    steps: int

    def size(self, normal: _Value, tiny: _Value) -> _Value:
        """Return one of two sizes."""
        return tiny if self.tiny else normal

    @property
    def device(self) -> torch.device:
        """The device on which models run."""
        return torch.accelerator.current_accelerator() or torch.device("cpu")


class Figure(NamedTuple):
    """A measured figure.

    Attributes:
        name: the name.
        value: the median of the turns.
        low: the lowest value.
        high: the highest value.
        unit: the unit; empty for a ratio.
        bar: the value to reach, such as `<= 0.5`; empty for a figure without one.
        how: the circumstances of the measurement.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    bar: str = ""
    how: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the value reaches the bar; None without a bar."""
        if not self.bar:
            return None
        sign, bar = self.bar.split()
        return self.value <= float(bar) if sign == "<=" else self.value >= float(bar)


def figure(name: str, values: Sequence[float], unit: str = "", bar: str = "", how: str = "") -> Figure:
    """Return the median and the spread of some values as a figure."""
    return Figure(name, statistics.median(values), min(values), max(values), unit, bar, how)


def ratio(name: str, one: Sequence[float], other: Sequence[float], bar: str = "", how: str = "") -> Figure:
    """Return the ratio of two sides, turn by turn, as a figure."""
    return figure(name, [a / b for a, b in zip(one, other, strict=True)], "", bar, how)


def minus(one: Sequence[float], other: Sequence[float], factor: float = 1.0) -> list[float]:
    """Return the differences of two sides, turn by turn, times a factor."""
    return [factor * (a - b) for a, b in zip(one, other, strict=True)]


def take_turns(sides: dict[str, Callable[[], float]], repeat: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Measure all sides in turns, so that changes in the load of the machine affect all of them alike.

    Args:
        sides: a function per side that returns its measured value.
        repeat: number of turns.
        warm_up: whether one more turn comes before, which is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat + warm_up):
        for name, measure in sides.items():
            value = measure()
            if turn >= warm_up:
                found[name].append(value)
    return found


def seconds(run: Callable[[], Any], times: int = 1) -> float:
    """Return the seconds of one run, as the mean of several; with an accelerator, until its work has ended."""
    wait_for_device()
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait_for_device()
    return (time.perf_counter() - started) / times


def wait_for_device() -> None:
    """Wait until the accelerator has done its work, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def memory(field: str) -> float:
    """Return the memory of this process in MiB, now (`VmRSS`) or at its peak (`VmHWM`). Needs Linux."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def run_program(command: Sequence[str], **environment: str) -> str:
    """Run a Python program from the root of the repository, and return its output.

    Raises:
        RuntimeError: if the program fails.
    """
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def machine() -> dict[str, Any]:
    """Return the versions of the libraries and the parts of the machine that decide its speed."""
    models = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else []
    names = ("mtl_nlp", "torch", "transformers", "accelerate", "datasets", "tokenizers", "peft")
    return {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": platform.python_version(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": round(os.getloadavg()[0], 2),
    }
