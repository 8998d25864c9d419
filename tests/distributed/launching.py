"""Start several processes, and end them if they hang."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--multi_gpu")


class Ended(NamedTuple):
    """The exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


def run(command: Sequence[str], cache: Path, timeout: float = 240.0) -> Ended:
    """Run a command to its end with a separate data cache; fail the test after `timeout` seconds."""
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(cache),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, HERE.parent, HERE))),
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its workers, which are not children of this process
            try:
                stdout, stderr = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
            pytest.fail(f"{command} hung.\n{stdout[-3000:]}\n{stderr[-6000:]}")
    return Ended(process.returncode, stdout, stderr)


def results_of(worker: str, processes: int, tokenizer: str, folder: Path) -> list[dict]:
    """Run a worker script of this folder in several processes, and return the results by rank.

    A single process is started without a launcher. All processes load the same tokenizer: a second training could give
    it different ids.
    """
    folder.mkdir()
    launcher = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    ended = run([*launcher, str(HERE / worker), tokenizer, str(folder)], folder / "cache")
    assert ended.code == 0, ended.stderr[-6000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]
