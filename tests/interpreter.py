"""Programs as processes of their own, without a second interpreter's imports for each of them."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

COMMANDS = (
    "mtl_nlp.cli.main",
    "mtl_nlp.export.stock",
    "mtl_nlp.run.build",
    "mtl_nlp.run.plan",
    "mtl_nlp.serving.predict",
)
"""What most commands import."""


class Finished(NamedTuple):
    """What came of a program."""

    status: int
    stdout: str
    stderr: str


class Running(NamedTuple):
    """A program under way; its folder takes what it prints and its exit status."""

    folder: Path

    def wait(self, timeout: float = 120.0) -> Finished:
        """Wait for its end."""
        status, until = self.folder / "status", time.monotonic() + timeout
        while not status.is_file():
            if time.monotonic() > until:
                os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
                raise TimeoutError(f"{self.folder} did not end: {(self.folder / 'stderr').read_text()}")
            time.sleep(0.02)
        printed = [(self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return Finished(int(status.read_text()), *printed)


class Interpreter:
    """A fresh interpreter that imports some modules and forks for each program, which runs in the fork.

    Args:
        folder: for what the programs print; they run in it.
        environment: added to this process's.
        modules: the modules that it imports.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = COMMANDS) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def start(self, code: str, *arguments: str, **environment: str) -> Running:
        """Start a program, with its arguments in `sys.argv[1:]`."""
        folder = self.folder / f"program-{next(self._numbers)}"
        folder.mkdir()
        (folder / "program.json").write_text(json.dumps([code, arguments, environment]), encoding="utf-8")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        return Running(folder)

    def run(self, code: str, *arguments: str, **environment: str) -> Finished:
        """Start a program and wait for its end."""
        return self.start(code, *arguments, **environment).wait()

    def start_command(self, *arguments: str, **environment: str) -> Running:
        """Start `mtl-nlp` with arguments."""
        return self.start("import sys; from mtl_nlp.cli.main import main; sys.exit(main())", *arguments, **environment)

    def command(self, *arguments: str, **environment: str) -> Finished:
        """Run `mtl-nlp` with arguments."""
        return self.start_command(*arguments, **environment).wait()


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(Path(line.rstrip("\n")))
    os._exit(0)


def _run(folder: Path) -> None:
    """Run a program in a child and write down how it ended."""
    code, arguments, environment = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    child = os.fork()
    if child:
        (folder / "pid").write_text(str(child))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (folder / "status.part").write_text(str(status))
        (folder / "status.part").rename(folder / "status")
        os._exit(0)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_RDWR), number)
    os.environ.update(environment)
    sys.argv = ["program", *arguments]
    status = 0
    try:
        exec(compile(code, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    # What an interpreter does at its end, but for taking its modules apart, which takes longer than most programs.
    threading._shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
