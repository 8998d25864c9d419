"""The signals that end a command, SIGINT (Ctrl-C) and SIGTERM, and the line that a command prints before it ends."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mtl_nlp.training.stopping import StoppableTrainer

_REPEATED_WITHIN = 1.0
"""Seconds after a signal in which a launcher may repeat the signal that the terminal has sent to all processes."""


class Interrupted(KeyboardInterrupt):
    """The end of a command by a signal. Libraries clean up after it as they do after Ctrl-C.

    Attributes:
        number: the number of the signal.
        advice: a sentence for the user.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.advice = ""


class EndingSignals:
    """The handlers of SIGINT and SIGTERM while a command runs.

    The first signal raises `Interrupted` in the main thread. Further signals end the process at once, except within
    one second. Processes that the command forks have the default handler of SIGTERM and ignore SIGINT: a terminal sends
    SIGINT to them too, and the command ends them itself.

    Attributes:
        received: the number of the signal that ends the command, or None.
    """

    _current: ClassVar[EndingSignals | None] = None

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._is_reported = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside this context, and after it too if one of them ends the command.

        Until the interpreter has shut down, a further signal should not print a traceback.
        """
        _reset_handlers_of_children()
        EndingSignals._current = self
        previous = {number: _handle(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            if self.received is None:
                EndingSignals._current = None
                for number, handler in previous.items():
                    _handle(number, handler)

    def report(self, error: KeyboardInterrupt) -> int:
        """Print one line about the end of the command, only in the first process, and return the exit code."""
        number, advice = (error.number, error.advice) if isinstance(error, Interrupted) else (signal.SIGINT, "")
        self._expect_further_signals(number)
        if not self._is_reported and _is_first_process():
            with contextlib.suppress(OSError):  # the terminal may be closed
                start = "\n" if sys.stderr.isatty() else ""  # ends the line of a progress bar
                print(f"{start}mtl-nlp: {_ending(number)} {advice}".rstrip(), file=sys.stderr, flush=True)
        self._is_reported = True
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """The exit code for a signal, as shells define it: 130 for SIGINT, 143 for SIGTERM; 0 without a signal."""
        return 0 if self.received is None else 128 + self.received

    def _expect_further_signals(self, number: int) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            for each in (signal.SIGINT, signal.SIGTERM):
                _handle(each, self._leave)
                # The interpreter removes handlers in Python before it ends, and a signal would change the exit code.
                atexit.register(_handle, each, signal.SIG_IGN)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._expect_further_signals(number)
        raise Interrupted(number)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._since < _REPEATED_WITHIN:
            return
        if not self._is_reported and _is_first_process():
            with contextlib.suppress(OSError):
                os.write(2, f"mtl-nlp: {_ending(number)}\n".encode())
        os._exit(self.exit_code)

    @classmethod
    def _reset_in_child(cls) -> None:
        if cls._current is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def sigterm_stops(trainer: StoppableTrainer) -> Iterator[None]:
    """Let SIGTERM stop the training inside this context, with a checkpoint, instead of ending the command at once.

    A signal during the last optimizer step stops nothing: the command continues and saves the trained model.

    Args:
        trainer: the trainer.

    Raises:
        Interrupted: at the end of the context, if the training was stopped, in this or a different process.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.request_stop()

    previous = _handle(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) == stop:  # a signal that ends the command has set a different handler
            _handle(signal.SIGTERM, previous)
    if trainer.is_stopped:
        end_process_group()  # all processes have agreed to stop
        error = Interrupted(signal.SIGTERM)
        if trainer.args.save_only_model:
            error.advice = "Under `save_only_model` no checkpoint was saved, since no run could resume from it."
        raise error


def end_process_group() -> None:
    """Join the threads of torch's process group, if the command has one.

    A thread that frees the tensors of its last collective operation needs the interpreter. An interpreter that shuts
    down ends such a thread inside C++, which aborts the process with "terminate called without an active exception".
    """
    if "torch.distributed" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def advice_to_resume(output_dir: Path) -> Iterator[None]:
    """Add the checkpoint to resume from to the line about a signal, or a lost process, inside this context.

    Args:
        output_dir: the folder of the run.

    Raises:
        RunError: if a worker of the data loader was killed, or a different process of the run has ended.
    """
    from mtl_nlp.training.completeness import describe_last_checkpoint

    try:
        yield
    except Interrupted as error:
        error.advice = f"{error.advice} {describe_last_checkpoint(output_dir)}".lstrip()
        raise
    except (RuntimeError, ConnectionError, EOFError):
        from mtl_nlp.training.failures import lost_processes_reported

        # torch reports each killed worker at any place in the main thread, even after the training has failed.
        with lost_processes_reported(output_dir):
            raise


def _handle(number: int, handler: Any) -> Callable[[int, FrameType | None], Any] | int | None:
    """Set the handler of a signal, and return the previous handler.

    Only the main thread can set a handler. A signal that this process ignores, as shells let their background jobs
    ignore Ctrl-C, stays ignored.
    """
    previous = signal.getsignal(number)
    if threading.current_thread() is threading.main_thread() and previous != signal.SIG_IGN and handler is not None:
        signal.signal(number, handler)
    return previous


@functools.cache
def _reset_handlers_of_children() -> None:
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=EndingSignals._reset_in_child)


def _ending(number: int) -> str:
    return f"ended by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}."


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
