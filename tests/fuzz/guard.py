"""The process of one case: it sets limits, watches what the commands do, and runs them.

The preloaded interpreter imports this module, and a fork of the interpreter calls `run`. What the commands must not do
is written to the case's report, one JSON array `[kind, detail]` per line.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtl_nlp.cli.main import main

CPU_SECONDS = 20
"""The CPU time of a case. It does not depend on the other processes of a machine, in contrast to wall-clock time."""
WALL_SECONDS = 120
"""The time of a case that waits and needs no CPU time, on a machine with other work."""
MEMORY = 2 << 30
"""The bytes of address space that a case may add to those of the preloaded interpreter."""

_PATHS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
}
"""Audit event -> the positions of the changed paths, each with the position of the descriptor of its folder."""
_MOST_FORKS = 8
"""The number of processes that a case may fork, such as those that load data."""
_PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
_PROGRAMS = ("git", "fc-list")
"""The programs that commands start: the commit of a run is in its results, and matplotlib lists the fonts once."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def run(specification: str) -> None:
    """Run the commands of a case until one of them does not end with exit code 0, and exit with its code.

    Args:
        specification: JSON with `before` (Python code, such as a fault to find), `commands` (lists of arguments),
            `folder` (the working directory), `report` (a file), `writable` (folders), `canary` (a file that only code
            in an input creates), `stdin` (a file, or null for none) and `hub` (the port of the Hub, or null if no
            connection is allowed).
    """
    case = json.loads(specification)
    report = os.open(case["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def violation(kind: str, detail: str) -> None:
        os.write(report, (json.dumps([kind, detail]) + "\n").encode())

    os.chdir(case["folder"])
    if case["stdin"] is not None:
        os.dup2(os.open(case["stdin"], os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.dont_write_bytecode = True
    globals()["case"] = case
    exec(case["before"], globals())
    _limit(report)
    sys.addaudithook(_watcher(case, violation))
    for arguments in case["commands"]:
        try:
            status = main(arguments)
        except Exception as error:  # every exception that a user would see as a traceback
            violation("traceback", _origin(error))
            raise
        if status != 0:
            sys.exit(status)


def _limit(report: int) -> None:
    """Set the limits, and write the stack of a process that exceeds them or crashes to the report."""
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MEMORY, resource.RLIM_INFINITY))
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + CPU_SECONDS, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(report)
    faulthandler.register(signal.SIGXCPU, report, chain=True)
    faulthandler.dump_traceback_later(WALL_SECONDS, file=report, exit=True)


def _watcher(case: dict[str, Any], violation: Callable[[str, str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the audit hook that forbids writing outside of the writable folders, connections and processes."""
    writable = tuple(os.path.realpath(folder) + os.sep for folder in [*case["writable"], "/dev", "/proc/self"])
    canary = os.path.realpath(case["canary"])
    forks = itertools.count(1)

    def check_path(event: str, path: str) -> None:
        if path == canary:
            violation("ran code", f"{event} {path}")
        elif not (path + os.sep).startswith(writable):
            violation("wrote outside", f"{event} in {_caller()}: {path}")
            raise PermissionError(13, "outside of the writable folders", path)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and flags & _WRITES:
                check_path(event, os.path.realpath(os.fsdecode(path)))
        elif event in _PATHS:
            for position, folder in _PATHS[event]:
                path = arguments[position]
                if isinstance(path, str | bytes | os.PathLike):
                    changed = _absolute(os.fsdecode(path), -1 if folder is None else arguments[folder])
                    # `Path.mkdir(exist_ok=True)` calls `os.mkdir` for an existing folder too.
                    if event != "os.mkdir" or not os.path.lexists(changed):
                        check_path(event, changed)
        elif event in ("socket.connect", "socket.getaddrinfo"):
            address = arguments[1] if event == "socket.connect" else arguments[:2]
            if isinstance(address, tuple) and address[1] != case["hub"]:
                violation("network", f"{event} {address} in {_caller()}")
                raise ConnectionRefusedError(111, "no network")
        elif event == "os.fork" and next(forks) > _MOST_FORKS:
            violation("started a process", f"forked {_MOST_FORKS} times in {_caller()}")
            raise PermissionError(13, "too many processes")
        elif event in _PROCESSES and arguments[0] not in _PROGRAMS:
            violation("started a process", f"{event} {arguments[0]!r} {arguments[1:2]!r:.200}")
            raise PermissionError(13, "no processes")

    return watch


def _absolute(path: str, folder: int) -> str:
    """Return an absolute path without following a link in its last part."""
    absolute = Path("." if folder < 0 else f"/proc/self/fd/{folder}", path)
    return str(absolute.parent.resolve() / absolute.name)


def _caller() -> str:
    """Return the function of mtl_nlp that is running."""
    stack = reversed(traceback.extract_stack())
    return place([(frame.filename, frame.name) for frame in stack if "/mtl_nlp/" in frame.filename])


def _origin(error: BaseException) -> str:
    """Return an exception with the innermost frame of mtl_nlp and the innermost frame of all."""
    frames = traceback.extract_tb(error.__traceback__)
    places = place([(frame.filename, frame.name) for frame in reversed(frames)])
    return f"{type(error).__name__} in {places}: {' '.join(str(error).split()):.160}"


def place(frames: Sequence[tuple[str, str]]) -> str:
    """Return the innermost frame of mtl_nlp and the innermost frame of all.

    Args:
        frames: file and function, from the innermost to the outermost.
    """
    ours = [frame for frame in frames if "/mtl_nlp/" in frame[0]]
    chosen = dict.fromkeys([*ours[:1], *frames[:1]])
    return " < ".join(f"{'/'.join(Path(file).parts[-2:])}:{name}" for file, name in chosen)
