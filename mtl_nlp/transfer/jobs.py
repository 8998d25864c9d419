"""The runs of a comparison: each one is a folder with a content key, trained by a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtl_nlp.errors import CommandError, RunError
from mtl_nlp.messages import conceal, counted
from mtl_nlp.recipe.own_code import uses_code
from mtl_nlp.recipe.plain_yaml import dump_yaml
from mtl_nlp.run_folder import PREDICTIONS_NAME, RESULTS_NAME, checkpoint_folders, read_results
from mtl_nlp.training.completeness import checkpoint_problem

_RUNS, _RECIPES, _LOGS = "runs", "recipes", "logs"
_KEY_LENGTH = 16
_SECONDS_TO_STOP = 300.0
"""The longest time in which a run may write a checkpoint after SIGTERM."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a comparison.

    Attributes:
        side: the name of the side.
        seed: the seed of the run.
        tasks: the tasks of the run.
        recipe: the recipe of the run as plain data, with variables as they stand, without `output_dir`.
        key: the content key of the run.
        rows: the number of rows that the training reads.
        share: the share of the training rows, for a learning curve.
        serves: the tasks that are scored, if the other tasks only help; all tasks by default.
    """

    side: str
    seed: int
    tasks: tuple[str, ...]
    recipe: Mapping[str, Any]
    key: str
    rows: float
    share: float = 1.0
    serves: tuple[str, ...] = ()

    @property
    def served(self) -> tuple[str, ...]:
        """The tasks that are scored."""
        return self.serves or self.tasks

    @property
    def name(self) -> str:
        """The side, the tasks of a run with one task or with helpers, the seed, and the share of rows below 100 %."""
        task = f" {' '.join(self.served)}" if self.serves or len(self.tasks) == 1 else ""
        share = f", {100 * self.share:.0f} % of the rows" if self.share < 1 else ""
        return f"{self.side}{task}, seed {self.seed}{share}"


def folder_of(output: Path, job: Job) -> Path:
    """Return the folder of a run: an existing folder with the run's key, or a new one."""
    key = job.key[:_KEY_LENGTH]
    found = sorted((output / _RUNS).glob(f"*-{key}"))
    return found[0] if found else output / _RUNS / f"{re.sub(r'[^A-Za-z0-9]+', '-', job.name)}-{key}"


def is_complete(output: Path, job: Job, split: str) -> bool:
    """Return whether a run has been trained and scored on a split.

    Raises:
        DataError: if the results of the run are damaged.
    """
    folder = folder_of(output, job)
    # The results are written last, and as a whole.
    return (folder / PREDICTIONS_NAME).is_file() and read_results(folder / RESULTS_NAME).get("split") == split


def check_jobs(number: int) -> None:
    """Check that several runs can train at once: one per accelerator, or one per CPU core without accelerators.

    Raises:
        CommandError: if there are fewer devices, or the command was launched with several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError("compare: starts the processes of its runs itself. Call it without `accelerate launch`.")
    devices = torch.accelerator.device_count()
    limit, kind = (devices, "device") if devices else (os.cpu_count() or 1, "CPU core")
    if number > limit:
        raise CommandError(f"--jobs: should be at most {limit}, one per {kind}. Found {number}.")


class JobRunner:
    """The processes that train the runs of a comparison.

    Args:
        output: the folder of the comparison.
        number: the number of runs that train at once.
        split: the split to score.
        report: a function that shows a line to the user.
    """

    def __init__(self, output: Path, number: int, split: str, report: Callable[[str], None]) -> None:
        self.output = output
        self.number = number
        self.split = split
        self.report = report
        self._devices = list(range(number))
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._is_ending = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Train and score all runs that are not complete. A run that was interrupted resumes.

        If the command is interrupted, the runs in hand save a checkpoint and end.

        Raises:
            RunError: if a run failed.
            CommandError: if the input of a run is not valid.
        """
        distinct = {job.key: job for job in jobs}.values()  # a group of one task may equal the run of the task alone
        missing = [job for job in distinct if not is_complete(self.output, job, self.split)]
        if 0 < len(missing) < len(distinct):
            self.report(f"{len(distinct) - len(missing)} of {counted(len(distinct), 'run')} done")
        with ThreadPoolExecutor(self.number) as pool:
            futures: list[Future[None]] = []
            is_done = False
            try:
                for number, job in enumerate(missing, start=1):
                    futures.append(pool.submit(self._run, job, f"[{number}/{len(missing)}]"))
                for future in as_completed(futures):
                    future.result()
                is_done = True
            finally:
                if not is_done:  # by an error, or by a signal
                    for future in futures:
                        future.cancel()
                    self._end()

    def _run(self, job: Job, position: str) -> None:
        folder = folder_of(self.output, job)
        recipe = self._write_recipe(job, folder)
        log = self.output / _LOGS / f"{folder.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.report(f"{position} {job.name}: training, log in {conceal(str(log))}")
        started = time.monotonic()
        # A run that was killed before its first complete checkpoint has nothing to resume.
        has_checkpoint = any(checkpoint_problem(each) is None for each in checkpoint_folders(folder))
        allow = ["--allow-code"] if uses_code(job.recipe) else []  # the reader of the compared recipe has allowed it
        status = self._call(["train", str(recipe), "--resume" if has_checkpoint else "--overwrite", *allow], log)
        if status == 0 and read_results(folder / RESULTS_NAME)["split"] != self.split:
            predictions = ["--predictions", str(folder / PREDICTIONS_NAME)]
            arguments = ["evaluate", str(folder), "--recipe", str(recipe), "--split", self.split, *predictions]
            status = self._call([*arguments, *allow], log)
        if self._is_ending:
            return
        if status != 0:
            # Where memory runs out, the system kills the process, without a line in its log.
            why = _last_line(log) if status > 0 else f"signal {-status} has ended the process."
            raise (CommandError if status == 2 else RunError)(f"{job.name}: {why} The log is {log}.")
        for checkpoint in checkpoint_folders(folder):
            shutil.rmtree(checkpoint)
        self.report(f"{position} {job.name}: {_scores_in(folder)} ({time.monotonic() - started:.0f} s)")

    def _write_recipe(self, job: Job, folder: Path) -> Path:
        path = self.output / _RECIPES / f"{folder.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {**job.recipe, "output_dir": f"../{_RUNS}/{folder.name}"}
        path.write_text(dump_yaml(data), encoding="utf-8")
        return path

    def _call(self, arguments: Sequence[str], log: Path) -> int:
        """Run a command in a process of its own, and return the exit code."""
        command = [sys.executable, "-m", "mtl_nlp", *arguments]
        with self._lock:
            device = self._devices.pop()
        # A session of its own keeps Ctrl-C away: the comparison sends SIGTERM instead, upon which a run saves.
        try:
            with open(log, "a", encoding="utf-8") as file, self._started(command, file, device) as process:
                return process.wait()
        finally:
            with self._lock:
                self._devices.append(device)

    def _started(self, command: Sequence[str], log: Any, device: int) -> subprocess.Popen:
        environment = os.environ | _environment(device, self.number)
        with self._lock:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self._running.add(process)
            if self._is_ending:
                process.terminate()
        return process

    def _end(self) -> None:
        """End all processes, and wait until they have saved their checkpoints."""
        with self._lock:
            self._is_ending = True
            for process in self._running:
                process.terminate()
            running = [*self._running]
        for process in running:
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(device: int, number: int) -> dict[str, str]:
    """Return the variables by which accelerate chooses a device, or that limit the threads of several processes."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and torch.accelerator.is_available():
        return {"ACCELERATE_TORCH_DEVICE": f"{accelerator.type}:{device}"} if number > 1 else {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // number))} if number > 1 else {}


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("mtl-nlp: error: ") if lines else "the process has ended without a message."


def _scores_in(folder: Path) -> str:
    scores: Iterable[tuple[str, Mapping[str, float | None]]] = read_results(folder / RESULTS_NAME)["tasks"].items()
    firsts = [(task, *next(iter(values.items()))) for task, values in scores]
    shown = [f"{task} {name} {'not defined' if value is None else f'{value:.4f}'}" for task, name, value in firsts[:6]]
    return ", ".join([*shown, *(["…"] if len(firsts) > 6 else [])])
