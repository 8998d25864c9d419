"""The last checkpoint of a run that is complete, so that the run can resume from it as if it had never stopped.

This module imports neither torch nor transformers, whose imports may just have been interrupted by a signal.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from mtl_nlp.errors import CheckpointError
from mtl_nlp.run_folder import CHECKPOINT_FILES_NAME, checkpoint_folders, step_of

_CONFIG, _STATE, _SCHEDULER, _SCALER = "config.json", "trainer_state.json", "scheduler.pt", "scaler.pt"
"""The names that transformers gives to files of a checkpoint."""

_SHARDED = ("pytorch_model_fsdp_*", "optimizer_*")
"""The folders of FSDP's sharded state."""

_WEIGHTS = tuple(
    f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")
)
_HAVE_WEIGHTS = (*_WEIGHTS, "pytorch_model_fsdp*", "global_step*")
_HAVE_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*")
"""The names from which Trainer loads weights and the optimizer's state, of which a checkpoint has at least one each."""

_LONGEST_NAME = 255
"""The length of a name in bytes that file systems allow."""


class LastCheckpoint(NamedTuple):
    """The checkpoint from which a run resumes.

    Attributes:
        path: the complete checkpoint of the highest step.
        skipped: one sentence per checkpoint of a higher step, with the reason why the checkpoint is incomplete.
    """

    path: Path
    skipped: list[str]


def last_checkpoint(folder: Path) -> LastCheckpoint:
    """Find the complete checkpoint of a run with the highest step.

    Args:
        folder: the run's `output_dir`.

    Raises:
        CheckpointError: if the folder has no complete checkpoint.
    """
    path, skipped = _choose(folder)
    if path is not None:
        return LastCheckpoint(path, skipped)
    raise CheckpointError(f"--resume: {_none_in(folder, skipped)} Leave out --resume to start a new run.")


def describe_last_checkpoint(folder: Path) -> str:
    """Return a sentence for the user of a run that has ended early: the checkpoint to resume from, if there is one.

    Args:
        folder: the run's `output_dir`.
    """
    path, skipped = _choose(folder)
    if path is not None:
        return f"The last complete checkpoint is {path}. To continue, add --resume."
    no_checkpoint = _none_in(folder, skipped)
    return f"{no_checkpoint[0].upper()}{no_checkpoint[1:]} Start the run again."


def _choose(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the complete checkpoint of the highest step, and sentences about the incomplete ones of higher steps."""
    skipped: list[str] = []
    for path in sorted(checkpoint_folders(folder), key=step_of, reverse=True):
        flaw = checkpoint_problem(path)
        if flaw is None:
            return path, skipped
        skipped.append(f"{path.name} is incomplete ({flaw})")
    return None, skipped


def _none_in(folder: Path, skipped: list[str]) -> str:
    reasons = f": {'; '.join(skipped)}" if skipped else ""
    return f"there is no complete checkpoint in {folder}{reasons}."


def list_files(checkpoint: Path, *, has_scheduler: bool, has_scaler: bool) -> None:
    """Write the names of the files without which a checkpoint is not complete into the folder of the checkpoint.

    The function is called when every process has created the files that Trainer does not write or writes per process,
    and before Trainer writes a file. Weights and optimizer states have different names per kind of training, see
    `checkpoint_problem`.

    Args:
        checkpoint: the folder of the checkpoint.
        has_scheduler: whether Trainer writes the state of the learning-rate scheduler.
        has_scaler: whether Trainer writes the state of a gradient scaler.
    """
    names = [path.name for path in checkpoint.iterdir()]
    names += [_SCHEDULER] * has_scheduler + [_SCALER] * has_scaler
    (checkpoint / CHECKPOINT_FILES_NAME).write_text(json.dumps({"files": sorted(names)}), encoding="utf-8")


def checkpoint_problem(checkpoint: Path) -> str | None:
    """Return the reason why a run cannot resume from a checkpoint, or None if the checkpoint is complete.

    The first process writes the state of the trainer last. Before, the trainer creates an empty file for the random
    state of each process, so these files show whether all processes have written their parts.
    """
    return next(_problems(checkpoint), None)


def _problems(checkpoint: Path) -> Iterator[str]:
    for name in (_STATE, _CONFIG):
        if not (checkpoint / name).is_file():
            yield f"{name} is missing"
    unreadable = (_unreadable(file) for file in sorted(checkpoint.rglob("*")) if file.is_file())
    yield from (flaw for flaw in unreadable if flaw is not None)
    # FSDP and DeepSpeed write weights and optimizer states into folders.
    if not _has(checkpoint, *_HAVE_WEIGHTS):
        yield "it has no weights"
    if not _has(checkpoint, *_HAVE_OPTIMIZER):
        yield "it has no optimizer state; was it saved with save_only_model?"
    yield from _problems_of_names(checkpoint)


def _unreadable(file: Path) -> str | None:
    """Return the flaw of a file that cannot be read to its end, or None for a file that can."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="np"):
                pass
        elif file.suffix in {".pt", ".pth", ".bin"}:
            with file.open("rb") as content:
                return None if zipfile.is_zipfile(content) else f"{file.name} is cut off"
    except OSError as error:
        return f"{file.name} cannot be read: {error.strerror}"
    except (ValueError, SafetensorError):
        return f"{file.name} is cut off"
    except RecursionError:
        return f"{file.name} is damaged"
    return None


def _problems_of_names(checkpoint: Path) -> Iterator[str]:
    """Yield the flaws of the files that name other files, and the names of missing files."""
    files: list[str] = []
    if (checkpoint / CHECKPOINT_FILES_NAME).is_file():
        listed = _value(checkpoint / CHECKPOINT_FILES_NAME, "files")
        if not isinstance(listed, list) or not listed or not all(map(_is_name, listed)):
            yield f"{CHECKPOINT_FILES_NAME} is damaged"
            return
        files += listed
    else:
        files += _usual_files(checkpoint)
    for index in checkpoint.glob("*.index.json"):
        shards = _value(index, "weight_map")
        if not isinstance(shards, dict) or not all(map(_is_name, shards.values())):
            yield f"{index.name} is damaged"
            return
        files += sorted(set(shards.values()))
    for pattern in _SHARDED:
        # torch.distributed.checkpoint writes this file when all processes have written their shards.
        files += [f"{folder.name}/.metadata" for folder in checkpoint.glob(pattern) if folder.is_dir()]
    yield from (f"{name} is missing" for name in files if not (checkpoint / name).is_file())
    if _has(checkpoint, "global_step*"):
        yield from _problems_of_deepspeed(checkpoint / "latest")


def _problems_of_deepspeed(latest: Path) -> Iterator[str]:
    """Yield the flaws of the file into which DeepSpeed writes the name of the folder with its complete state."""
    if not latest.is_file():
        yield f"{latest.name} is missing"
        return
    name = latest.read_bytes().decode("utf-8", errors="replace").strip()
    if not _is_name(name):
        yield f"{latest.name} is damaged"
    elif not latest.with_name(name).is_dir():
        yield f"{name} is missing"


def _usual_files(checkpoint: Path) -> list[str]:
    """Return the names of files of a checkpoint without a list: of an earlier release, or of a different trainer.

    Weights and the optimizer's state are not among the names.
    """
    if _has(checkpoint, "global_step*"):
        return []
    found = [re.fullmatch(r"rng_state_(\d{1,9})\.pth", path.name) for path in checkpoint.iterdir()]
    ranks = {int(match[1]) for match in found if match is not None}
    if not ranks:
        return [_SCHEDULER, "rng_state.pth"]
    # If there is a gap, the first rank without a file is at most the number of files.
    return [_SCHEDULER, *(f"rng_state_{rank}.pth" for rank in range(min(max(ranks), len(ranks)) + 1))]


def _value(file: Path, key: str) -> Any:
    """Return the value of a key of a JSON file that can be read, or None without the key."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return content.get(key) if isinstance(content, dict) else None


def _is_name(name: object) -> bool:
    """Return whether a value is the name of a file or folder, without a path to a different folder."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and len(name.encode()) <= _LONGEST_NAME
        and (name not in {"", ".", ".."} and not {"/", "\\"} & set(name))
    )


def _has(checkpoint: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in checkpoint.glob(pattern))
