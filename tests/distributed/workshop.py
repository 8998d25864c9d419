"""A folder in which training commands run in separate processes, get signals, and resume.

Most runs are forked from one process that has imported everything, since imports take most of the time of a run here.
Runs that the real commands start must reach the same weights.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import psutil
import pytest
import torch
import yaml
from launching import REPOSITORY, TORCHRUN
from safetensors.torch import load_file
from toys import TEXTS, build_config, build_tokenizer
from transformers import AutoModel

from mtl_nlp.cli.main import main
from mtl_nlp.training.completeness import checkpoint_problem

LAST_STEP = 20  # An epoch has 15 batches and 8 steps, each with two batches except the last. The run has 2.5 epochs.
RECIPE: dict[str, Any] = {
    "encoder": "encoder",
    "output_dir": "run",
    "tasks": {
        "pos": {"type": "token-classification"},
        "ner": {"type": "token-classification", "scheme": "iob2"},
        "topic": {"type": "text-classification"},
    },
    "datasets": {
        "words": {
            "path": "conll",
            "columns": ["tokens", "upos", "ner"],
            "data_files": {split: f"{split}.conll" for split in ("train", "validation")},
            "inputs": {"tokens": "tokens"},
            "labels": {"pos": "upos", "ner": "ner"},
        },
        "texts": {
            "path": "json",
            "data_files": {split: f"{split}-*.jsonl" for split in ("train", "validation")},
            "inputs": {"text": "text"},
            "labels": {"topic": "topic"},
        },
    },
    "mixture": {"temperature": 2},
    "training": {
        "num_train_epochs": 2.5,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": True,
        "early_stopping_patience": 50,
        "logging_steps": 1,
        "use_cpu": True,
        "precision": "fp32",  # the moments of the kills fit these losses
    },
}
STREAMED = ("datasets.texts.streaming=true", "datasets.texts.buffer_size=7")
CASES: dict[str, tuple[str, ...]] = {
    "mixed": (),
    "homogeneous": ("mixture.batching=homogeneous",),
    "moving temperature": ("mixture.temperature=[5, 1]",),
    "token budget": ("training.max_tokens_per_batch=64",),
    "saved at the epoch's border": ("training.save_steps=8", "training.eval_steps=8"),
    "a worker": ("training.dataloader_num_workers=1", "training.save_steps=4", "training.eval_steps=4"),
    "streamed": STREAMED,
    "streamed by a worker": (
        *STREAMED, "training.dataloader_num_workers=1", "training.dataloader_persistent_workers=true"
    ),
    "adapters": (
        *("adapters.r=4", "adapters.target_modules=[query, value]", "adapters.tasks=[ner, topic]"),
        *("adapters.shared=true", "adapters.dropout=0.1", "adapters.pull=0.01", "training.adapter_learning_rate=0.02"),
    ),
    "frozen, with adapters": (
        *("adapters.target_modules=all-linear", "adapters.train_encoder=false", "adapters.pull=0.001"),
        *("mixture.batching=homogeneous", "freeze=[pos]"),
    ),
    "headroom": ("mixture.headroom=true", "mixture.length_window=3"),
    "headroom, streamed": (*STREAMED, "mixture.headroom=true", "mixture.length_window=3"),
    "tasks that stop": ("loss.freeze_when_overfit={patience: 1}", "loss.weights={pos: [1, 0.2]}"),
    "the last model": (
        *("training.load_best_model_at_end=false", "training.early_stopping_patience=null"),
        "training.lr_scheduler_type=constant",
    ),
}  # fmt: skip
"""Overrides of the recipe."""

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    [
        "mtl_nlp.cli.main",
        "mtl_nlp.run.build",
        "mtl_nlp.run.plan",
        "mtl_nlp.evaluation.metrics",
        "transformers.models.bert.modeling_bert",
        "psutil",
        "pytest",
    ]
)


class Ended(NamedTuple):
    """The end of a command: the exit codes of its processes by rank, and the output of the first process."""

    codes: list[int | None]
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line on stderr of a command that refused its input."""
        return self.line(2, "mtl-nlp: error: ")

    def line(self, code: int, start: str) -> str:
        """Check that all processes have ended with an exit code, the first with one line; return this line."""
        lines = [line for line in self.stderr.splitlines() if start in line]
        assert set(self.codes) == {code}, (self.codes, self.stderr[-6000:])
        assert len(lines) == 1, self.stderr[-6000:]
        assert "Traceback" not in self.stderr
        return lines[0]

    @property
    def notes(self) -> list[str]:
        """The notes about resuming."""
        start = "note: --resume: "
        return [line.removeprefix(start) for line in self.stdout.splitlines() if line.startswith(start)]


class Started:
    """A running command; its output goes to files in `folder`."""

    def __init__(self, folder: Path, processes: Sequence[BaseProcess | subprocess.Popen]) -> None:
        self.folder = folder
        self.processes = processes

    @property
    def codes(self) -> list[int | None]:
        return [each.poll() if isinstance(each, subprocess.Popen) else each.exitcode for each in self.processes]

    @property
    def is_running(self) -> bool:
        return None in self.codes

    @property
    def step(self) -> int:
        """The last step that the command has logged."""
        stdout = self.read("stdout")
        first = stdout.partition("resuming from checkpoint-")[2].partition("\n")[0] or "0"
        steps = re.findall(r"^step (\d+)/.* loss ", stdout, re.MULTILINE)
        return int(steps[-1] if steps else first)

    def freeze(self) -> list[psutil.Process]:
        """Stop all processes at once, including the workers of a launcher and of a loader."""
        family: list[psutil.Process] = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                parent.suspend()
                family += [parent, *parent.children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        return family

    def signal(self, number: int, *ranks: int) -> None:
        """Send a signal to the processes of some ranks, or to all."""
        for rank in ranks or range(len(self.processes)):
            os.kill(self.processes[rank].pid, number)

    def workers(self, rank: int = 0) -> list[psutil.Process]:
        """The processes that a process has started, such as the workers of a loader."""
        return psutil.Process(self.processes[rank].pid).children(recursive=True)

    def thaw(self) -> None:
        """Undo `freeze`."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(process.pid).resume()

    def kill(self) -> None:
        """Kill all processes at once, so that no process notices the end of another."""
        for each in self.freeze():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.end()

    def end(self, timeout: float = 240.0) -> Ended:
        """Wait for the end of the command."""
        deadline = time.monotonic() + timeout
        while self.is_running:
            if time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"it hung.\n{self.read('stderr')[-6000:]}")
            time.sleep(0.005)
        return Ended(self.codes, self.read("stdout"), self.read("stderr"))

    def read(self, name: str) -> str:
        file = self.folder / name
        return file.read_text(encoding="utf-8") if file.is_file() else ""


Moment = Callable[[Started], bool]
"""Whether it has come."""


def run_command(arguments: list[str], folder: Path, environment: dict[str, str], file_size: int | None) -> None:
    """Run a command of mtl-nlp in this process, with its output in files and no file larger than `file_size` bytes."""
    rank = int(environment.get("RANK", 0))
    for number, name in enumerate(("stdout", "stderr"), start=1):
        os.dup2(os.open(folder / (f"{name}-{rank}" if rank else name), os.O_WRONLY | os.O_CREAT), number)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # for the workers of a loader, as in the real command
    datasets.config.HF_DATASETS_CACHE = folder.parent / "cache"
    torch.set_num_threads(1)
    gc.freeze()  # keeps garbage collection from searching the imported modules
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.exit(main(arguments))


class Workshop:
    """A folder with an encoder, data and a recipe, in which commands run.

    Attributes:
        folder: the folder.
        recipe: the file of the recipe.
        started: all commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.started: list[Started] = []
        self._references: dict[tuple[str, int], Path] = {}
        torch.manual_seed(0)
        dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        AutoModel.from_config(build_config("bert", **dropout)).save_pretrained(folder / "encoder")
        build_tokenizer("wordpiece").save_pretrained(folder / "encoder")
        write_data(folder)
        self.recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")

    def start(
        self,
        output: Path,
        *overrides: str,
        resume: bool = False,
        overwrite: bool = False,
        processes: int = 1,
        command: bool = False,
        file_size: int | None = None,
    ) -> Started:
        """Start training.

        Args:
            output: the `output_dir` of the run.
            *overrides: overrides of the recipe.
            resume: whether to resume.
            overwrite: whether to replace the run in the folder.
            processes: number of processes.
            command: start `python -m mtl_nlp` or torchrun, instead of a fork.
            file_size: largest size of a file in bytes.
        """
        folder = self.folder / f"started-{len(self.started)}"
        folder.mkdir()
        rows = f"training.per_device_train_batch_size={4 // processes}"
        choice = [*(["--resume"] if resume else []), *(["--overwrite"] if overwrite else [])]
        arguments = ["train", str(self.recipe), *choice]
        arguments += [part for each in (f"output_dir={output}", rows, *overrides) for part in ("--set", each)]
        environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        start = self._execute if command else self._fork
        self.started.append(Started(folder, start(arguments, processes, folder, environment, file_size)))
        return self.started[-1]

    def _fork(
        self, arguments: list[str], processes: int, folder: Path, environment: dict[str, str], file_size: int | None
    ) -> list[BaseProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        started = []
        for rank in range(processes):
            if processes > 1:
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
                environment = {**environment, **address, **{key: str(value) for key, value in numbers.items()}}
            started.append(FORKING.Process(target=run_command, args=(arguments, folder, environment, file_size)))
            started[-1].start()
        return started

    def _execute(
        self, arguments: list[str], processes: int, folder: Path, environment: dict[str, str], file_size: int | None
    ) -> list[subprocess.Popen]:
        launcher = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
        environment = {
            **os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(REPOSITORY), "HF_DATASETS_CACHE": str(self.folder / "cache"),
        }  # fmt: skip
        with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
            command = [*launcher, "-m", "mtl_nlp", *arguments]
            return [subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)]

    def train(self, output: Path, *overrides: str, processes: int = 1, **more: Any) -> Ended:
        """Train to the end."""
        ended = self.start(output, *overrides, processes=processes, **more).end()
        assert set(ended.codes) == {0}, ended.stderr[-6000:]
        assert ("2 processes." in ended.stdout) == (processes == 2)
        return ended

    def start_until(self, is_now: Moment, output: Path, *overrides: str, **more: Any) -> Started:
        """Start training, and return the running command at a moment."""
        started = self.start(output, *overrides, **more)
        while not is_now(started):
            assert started.is_running, started.end().stderr[-6000:]
            time.sleep(0.0005)
        return started

    def train_until(self, is_now: Moment, output: Path, *overrides: str, **more: Any) -> None:
        """Train until a moment, and kill the run at that moment."""
        self.start_until(is_now, output, *overrides, **more).kill()

    def train_with_kills(
        self, moments: Sequence[Moment], output: Path, *overrides: str, processes: int = 1, command: bool = False
    ) -> list[Ended]:
        """Train to the end, kill and resume at each moment, and return the end of the last run.

        Without a complete checkpoint the run restarts.
        """
        more: dict[str, Any] = {"processes": processes, "command": command}
        resume = False
        for is_now in moments:
            self.train_until(is_now, output, *overrides, resume=resume, **more)
            resume = any(checkpoint_problem(path) is None for path in output.glob("checkpoint-*"))
            if not resume:
                error = self.start(output, *overrides, resume=True, processes=processes).end().error
                assert "--resume: there is no complete checkpoint in" in error
        ended = self.train(output, *overrides, resume=resume, **more)
        assert any(note.startswith("resuming from checkpoint-") for note in ended.notes) == resume
        return ended

    def reference(self, case: str, processes: int = 1) -> Path:
        """Return the folder of a run that was never stopped."""
        if (case, processes) not in self._references:
            output = self.folder / f"reference-{len(self._references)}"
            self.train(output, *CASES[case], processes=processes)
            self._references[case, processes] = output
        return self._references[case, processes]


def write_data(folder: Path) -> None:
    """Write 40 sentences with tags and names, 20 texts with topics in two files, and validation splits of both."""
    rng = random.Random(0)
    vocabulary = sorted({word for text in TEXTS for word in text.split()})

    def words() -> list[str]:
        return rng.choices(vocabulary, k=rng.randint(3, 20))

    for split, sentences, texts in (("train", 40, 20), ("validation", 6, 6)):
        blocks = []
        for _ in range(sentences):
            lines = [(word, "SHORT" if len(word) < 5 else "LONG", "B-X" if word.istitle() else "O") for word in words()]
            blocks.append("".join("\t".join(line) + "\n" for line in lines))
        (folder / f"{split}.conll").write_text("\n".join(blocks), encoding="utf-8")
        rows = [words() for _ in range(texts)]
        lines = [json.dumps({"text": " ".join(row), "topic": "long" if len(row) > 9 else "short"}) for row in rows]
        for number in range(2):
            (folder / f"{split}-{number}.jsonl").write_text("\n".join(lines[number::2]) + "\n", encoding="utf-8")


def after(step: int, seconds: float = 0.0) -> Moment:
    """Return a moment some time after a step."""
    since: list[float] = []

    def is_now(started: Started) -> bool:
        if not since and started.step >= step:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return is_now


def random_moments(seed: int, count: int, first: int = 1, last: int = 16) -> list[Moment]:
    """Return random moments in order, with some steps left before the end."""
    rng = random.Random(seed)
    return [after(step, rng.uniform(0.0, 0.05)) for step in sorted(rng.sample(range(first, last + 1), count))]


def while_writing(output: Path, name: str) -> Moment:
    """Return the moment when a checkpoint has a certain file but is still incomplete."""
    seen: set[tuple[Path, int, int]] | None = None

    def found() -> Iterator[tuple[Path, int, int]]:
        for file in output.glob(f"checkpoint-*/{name}"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                yield file.parent, status.st_ino, status.st_mtime_ns

    def is_now(started: Started) -> bool:
        nonlocal seen
        if seen is None:  # of previous runs
            seen = set(found())
        for each in found():
            if each not in seen:
                seen.add(each)
                started.freeze()
                if checkpoint_problem(each[0]) is not None:
                    return True
                started.thaw()
        return False

    return is_now


def has_saved(output: Path, step: int) -> Moment:
    """Return the moment when a checkpoint is complete."""
    return lambda started: checkpoint_problem(output / f"checkpoint-{step}") is None


def state_of(output: Path) -> dict[str, Any]:
    """Return the state in the last checkpoint, without values that depend on the time."""
    number = max(int(path.name.rpartition("-")[2]) for path in output.glob("checkpoint-*"))
    state = json.loads((output / f"checkpoint-{number}" / "trainer_state.json").read_text(encoding="utf-8"))
    clock = ("runtime", "per_second")
    history = [{key: v for key, v in entry.items() if not key.endswith(clock)} for entry in state["log_history"]]
    kept = ("best_metric", "best_global_step", "global_step", "epoch", "max_steps", "stateful_callbacks")
    return {**{key: state[key] for key in kept}, "log_history": history}


def assert_same_run(output: Path, reference: Path, *more: int) -> None:
    """Check that the model, the weights in each checkpoint and the log are equal to the last bit.

    Args:
        output: the folder of the run.
        reference: the folder of the run that was never stopped.
        *more: the steps of checkpoints that the reference does not have.
    """
    assert state_of(output) == state_of(reference)
    files = sorted(path.relative_to(reference) for path in reference.rglob("model.safetensors"))
    additional = [Path(f"checkpoint-{step}/model.safetensors") for step in more]
    found = sorted(path.relative_to(output) for path in output.rglob("model.safetensors"))
    assert found == sorted([*files, *additional])
    for name in files:
        weights, expected = load_file(output / name), load_file(reference / name)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected), name
    scores, others = (json.loads((path / "results.json").read_text())["tasks"] for path in (output, reference))
    assert scores == others
