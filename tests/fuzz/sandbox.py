"""Cases of the fuzzer: commands on damaged input, in processes of their own, and what a case may not do."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from guard import WALL_SECONDS, place
from interpreter import COMMANDS, Finished, Interpreter
from local_hub import LocalHub
from safetensors import SafetensorError
from safetensors.torch import load_file

SECRET_NAME, SECRET = "FUZZ_SECRET", "s3cret-of-the-environment"
"""A variable of the environment whose value must not be written, printed or sent."""
_NOTES = "notes-outside-of-the-case"
_IMPORT_SECONDS = 240.0
"""The time for the imports of the interpreter, on a machine with other work."""
PREFIX = "mtl-nlp: error: "
_NOTE = re.compile(r"no answer: |\d+ texts? answered\.")
"""The start of a line of `predict` about the inputs before a damaged place; the last line has the error."""
_BEFORE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
{COMMANDS}
import mtl_nlp.run.arguments, mtl_nlp.evaluation.results, mtl_nlp.evaluation.metrics, mtl_nlp.hub.repository
import mtl_nlp.export.peft, mtl_nlp.training.pushing, evaluate, sklearn.metrics, seqeval.metrics
import guard
"""


class Violation(NamedTuple):
    """Something that a case did and must not do.

    Attributes:
        kind: `traceback`, `crash`, `hang`, `exit code`, `message`, `wrote outside`, `network`, `ran code`, `secret`, …
        detail: where it happened; equal for two cases with the same cause, where possible.
    """

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class Outcome(NamedTuple):
    """The end of a case: how the commands ended, and all violations."""

    finished: Finished
    violations: tuple[Violation, ...]


class Sandbox:
    """A folder for cases, with a preloaded interpreter and a local Hub that runs until `close`.

    Attributes:
        canary: the file that damaged input tries to create by running code.
        outside: a folder that damaged input names. No case may change the folder or send the text in its file.
    """

    def __init__(self, folder: Path) -> None:
        self.hub = LocalHub()
        self.folder = folder
        self.canary = folder / "canary"
        self.outside = folder / "outside"
        self._programs = folder / "programs"
        home = folder / "home"
        for new in (self.outside, self._programs, home / "tmp"):
            new.mkdir(parents=True)
        (self.outside / "notes.txt").write_text(f"{_NOTES}\n", encoding="utf-8")
        environment = self.hub.environment(home) | {
            "TMPDIR": str(home / "tmp"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # otherwise `datasets` counts each use of its readers
            SECRET_NAME: SECRET,
        }
        self._home = home
        self._interpreter = Interpreter(self._programs, environment, _BEFORE)
        self._interpreter.start("pass").wait(_IMPORT_SECONDS)

    def close(self) -> None:
        """End the interpreter and the Hub."""
        self._interpreter.close()
        self.hub.close()

    def new_case(self, original: Path) -> Path:
        """Return a copy of a folder, which is the only copy: that of the case before is deleted."""
        case = self.folder / "case"
        if case.exists():
            shutil.rmtree(case)
        shutil.copytree(original, case, symlinks=True)
        return case

    def run(
        self,
        case: Path,
        commands: Sequence[Sequence[str]],
        writable: Sequence[Path] = (),
        online: bool = False,
        before: str = "",
        stdin: Path | None = None,
    ) -> Outcome:
        """Run commands in the folder of a case, and check what they did.

        Args:
            case: the folder, a copy with damaged files.
            commands: the arguments of each `mtl-nlp` command; a command runs if the one before has ended with 0.
            writable: the folders that the commands may write to.
            online: whether the commands may use the local Hub.
            before: Python code to run first, such as one that takes out the mend of a fault.
            stdin: the file that the commands read as standard input; an empty one by default.
        """
        report = self.folder / "report.jsonl"
        report.write_text("", encoding="utf-8")
        self.canary.unlink(missing_ok=True)
        self.hub.received.clear()
        inputs = {folder: dict(snapshot(folder, writable)) for folder in (case, self.outside)}
        outputs = {folder: dict(snapshot(folder)) for folder in writable}
        specification = {
            "before": before,
            "commands": [[*map(str, arguments)] for arguments in commands],
            "folder": str(case),
            "report": str(report),
            "writable": [*map(str, writable), str(self._home)],
            "canary": str(self.canary),
            "stdin": None if stdin is None else str(stdin),
            "hub": urlsplit(self.hub.endpoint).port if online else None,
        }
        running = self._interpreter.start("import sys, guard; guard.run(sys.argv[1])", json.dumps(specification))
        finished = running.wait(2 * WALL_SECONDS)
        shutil.rmtree(running.folder)
        violations = [*_reported(report), *_ended(finished, report), *self._leaks(finished, writable)]
        if self.canary.exists():
            violations.append(Violation("ran code", "created the canary"))
        for folder, files in inputs.items():
            violations += [Violation("wrote outside", f"changed {name}") for name in _changed(folder, files, writable)]
        if finished.status == 0:
            violations += [Violation("not finite", "printed")] * bool(_numbers_that_are_not_finite(finished.stdout))
            for folder, files in outputs.items():
                violations += [found for name in _changed(folder, files) for found in not_finite(folder / name)]
        return Outcome(finished, tuple(dict.fromkeys(violations)))

    def _leaks(self, finished: Finished, writable: Sequence[Path]) -> Iterator[Violation]:
        secret = SECRET.encode()
        if SECRET in finished.stdout + finished.stderr:
            yield Violation("secret", "printed")
        sent = {"the variable": SECRET, "a file outside": _NOTES, "a local path": str(self.folder)}
        for what, private in sent.items():
            if any(private.encode() in body for body in self.hub.received):
                yield Violation("secret", f"sent {what}")
        for folder in writable:
            for file in folder.rglob("*"):
                if file.is_file() and not file.is_symlink() and secret in file.read_bytes():
                    yield Violation("secret", f"written to {file.name}")


def snapshot(folder: Path, without: Sequence[Path] = ()) -> Iterator[tuple[str, str]]:
    """Yield name and content of everything in a folder, except for some folders inside of it."""
    for path in sorted(folder.rglob("*")):
        if any(path.is_relative_to(other) for other in without):
            continue
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, f"link to {path.readlink()}"
        elif path.is_dir():
            yield name, "folder"
        else:
            yield name, f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def not_finite(file: Path) -> Iterator[Violation]:
    """Check that the numbers in a file of JSON or weights are finite. A file that cannot be read has no numbers."""
    if file.suffix in (".json", ".jsonl") and file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        for word in _numbers_that_are_not_finite(text)[:1]:
            yield Violation("not finite", f"{word} in {file.name}")
    elif file.suffix == ".safetensors" and file.is_file():
        try:
            weights = load_file(file)
        except (SafetensorError, OSError):
            return
        if not all(weight.isfinite().all() for weight in weights.values() if weight.is_floating_point()):
            yield Violation("not finite", f"weights in {file.name}")


def _numbers_that_are_not_finite(text: str) -> list[str]:
    """Return the numbers in JSON that are not finite. Strings of JSON and prose may have the same words."""
    return re.findall(r"(?<=[\[:,])\s*(NaN|-?Infinity)\s*(?=[,\]}])", re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text))


def _changed(folder: Path, before: dict[str, str], without: Sequence[Path] = ()) -> list[str]:
    """Return the names that are new, missing or different in a folder since a snapshot."""
    after = dict(snapshot(folder, without))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _reported(report: Path) -> Iterator[Violation]:
    for line in report.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith('["'):
            kind, detail = json.loads(line)
            yield Violation("memory" if "MemoryError" in detail or "allocate memory" in detail else kind, detail)


def _ended(finished: Finished, report: Path) -> Iterator[Violation]:
    """Check the exit code and the one line on stderr."""
    status, stderr = finished.status, finished.stderr
    stack = re.findall(r'File "([^"]+)", line \d+ in (\S+)', report.read_text(encoding="utf-8", errors="replace"))
    if status < 0:
        kind = {-signal.SIGXCPU: "hang", -signal.SIGXFSZ: "large file"}.get(status, "crash")
        yield Violation(kind, f"signal {-status} in {place(stack)}: {stderr.strip()[-160:]}")
        return
    if "Timeout (" in report.read_text(encoding="utf-8", errors="replace"):
        yield Violation("hang", f"waited {WALL_SECONDS} s in {place(stack)}")
        return
    if status not in (0, 1, 2):
        yield Violation("exit code", str(status))
    traced = "Traceback (most recent call last)" in stderr
    if traced and not any('["traceback"' in line for line in report.read_text(encoding="utf-8").splitlines()):
        yield Violation("traceback", f"printed: {stderr.strip().splitlines()[-1]:.200}")
    if status == 0 or traced:
        return
    lines = [line for line in re.split(r"[\n\r]", stderr) if line.strip() and not re.search(r"\d%\|.*\|", line)]
    lines = [line for line in lines if not _NOTE.match(line)]
    errors = [line for line in lines if line.startswith(PREFIX)]
    if len(errors) != 1:
        yield Violation("message", f"{len(errors)} lines with the error: {' / '.join(lines)[-200:]}")
    elif len(lines) > 1:
        other = next(line for line in lines if not line.startswith(PREFIX))
        yield Violation("message", f"further lines, such as {other[:160]}")
    elif len(errors[0]) > 2000:
        yield Violation("long message", f"{errors[0][:80]}…")
