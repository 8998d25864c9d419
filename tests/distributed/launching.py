"""Start several processes, and end them if they hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from interpreter import Interpreter

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--multi_gpu")
ALONE = {
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, HERE.parent, HERE))),
}
"""The environment of a process that needs no network and no accelerator, and leaves the other processors alone."""
WORKER = """
import datasets, runpy, sys
script, tokenizer, folder = sys.argv[1:]
datasets.config.HF_DATASETS_CACHE = f"{folder}/cache"
sys.argv = [script, tokenizer, folder]
runpy.run_path(script, run_name="__main__")
"""


class Ended(NamedTuple):
    """The exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


def run(command: Sequence[str], cache: Path, timeout: float = 240.0) -> Ended:
    """Run a command to its end with a separate data cache; fail the test after `timeout` seconds."""
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    environment |= {**ALONE, "HF_DATASETS_CACHE": str(cache)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its workers, which are not child processes of this process
            try:
                stdout, stderr = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
            pytest.fail(f"{command} hung.\n{stdout[-3000:]}\n{stderr[-6000:]}")
    return Ended(process.returncode, stdout, stderr)


def results_of(
    workers: Interpreter, script: str, processes: int, tokenizer: str, folder: Path, timeout: float = 240.0
) -> list[dict]:
    """Run a script of this folder in the given number of processes, and return the results of each, by rank.

    The processes get the environment of torchrun, except a single process. All load the same tokenizer, since training
    the tokenizer again would change its ids.
    """
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    running = []
    for rank in range(processes):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        several = {**address, **{name: str(number) for name, number in numbers.items()}} if processes > 1 else {}
        running.append(workers.start(WORKER, str(HERE / script), tokenizer, str(folder), **several))
    for worker in running:
        finished = worker.wait(timeout=timeout)
        assert finished.status == 0, finished.stderr[-6000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]
