"""The failures of a run whose input was valid: a process that was lost, and a checkpoint that cannot be written."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from mtl_nlp.errors import RunError
from mtl_nlp.messages import one_line
from mtl_nlp.training.completeness import checkpoint_problem, describe_last_checkpoint

# torch raises RuntimeError for all of these failures, and only their messages differ.
_LOST_WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")
_LOST_PROCESS = re.compile(r"gloo|Connection (closed|reset) by peer|remote process exit", re.IGNORECASE)
_UNWRITTEN_FILE = re.compile(r"PytorchStreamWriter|inline_container")


def lost_process(error: BaseException) -> str | None:
    """Return a clause about the process that was lost, or None if an error has a different reason.

    torch raises the error of a data-loader worker in a signal handler, so the error can appear anywhere in the main
    thread. If the worker dies while it sends a batch, the connection to it ends with an error of its own.
    """
    is_connection = isinstance(error, ConnectionError | EOFError) and not isinstance(error, BrokenPipeError)
    reason = one_line(error).rstrip(".")
    if is_connection or (isinstance(error, RuntimeError) and _LOST_WORKER.search(reason)):
        return (
            f"a worker of the data loader was killed, in most cases because the memory was full ({reason}). Lower "
            f"`dataloader_num_workers` or `dataloader_prefetch_factor`"
        )
    if isinstance(error, RuntimeError) and _LOST_PROCESS.search(reason):
        return f"a different process of the run has ended ({reason}). Read the output of that process"
    return None


@contextlib.contextmanager
def lost_processes_reported(output_dir: Path | None) -> Iterator[None]:
    """Turn the error about a lost process inside this context into a `RunError`.

    Args:
        output_dir: the folder with the checkpoints of the run; None for an evaluation, which cannot be resumed.

    Raises:
        RunError: if a worker of the data loader was killed, or if a different process of the run has ended.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if (loss := lost_process(error)) is None:
            raise
        ignore_further_workers()
        advice = "" if output_dir is None else f" {describe_last_checkpoint(output_dir)}"
        raise RunError(f"{loss[0].upper()}{loss[1:]}.{advice}") from error


def ignore_further_workers() -> None:
    """Remove torch's signal handler, which would raise an error per killed worker while the first error is handled.

    Without the handler, as on Windows, a data loader itself notices within seconds that its worker has ended.
    """
    if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def failed_checkpoint(checkpoint: Path, error: Exception) -> RunError:
    """Return the error about a checkpoint that was not completed, and delete the checkpoint if the disk is full.

    Args:
        checkpoint: the folder of the checkpoint.
        error: the error that was raised while the checkpoint was written.
    """
    loss = lost_process(error)
    is_unwritten = isinstance(error, OSError | SafetensorError) or _UNWRITTEN_FILE.search(str(error)) is not None
    reason = loss or one_line(error).rstrip(".")
    if loss is not None:
        ignore_further_workers()
    if checkpoint_problem(checkpoint) is None:
        return RunError(f"{checkpoint} is complete, but the run has failed: {reason}. Resume from it: --resume.")
    if is_unwritten and loss is None:
        shutil.rmtree(checkpoint, ignore_errors=True)
        return RunError(
            f"{checkpoint} cannot be written ({one_line(error)}). Free disk space. "
            f"{describe_last_checkpoint(checkpoint.parent)}"
        )
    return RunError(f"{checkpoint} is incomplete: {reason}. {describe_last_checkpoint(checkpoint.parent)}")
