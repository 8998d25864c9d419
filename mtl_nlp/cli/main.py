"""The entry point of the command line: `mtl-nlp COMMAND`.

This module and the parsers of all commands import neither torch nor transformers, so that `--help` and errors in
options and recipes appear at once. Each command imports the modules that it needs when it runs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from mtl_nlp._version import __version__
from mtl_nlp.cli import (
    answering,
    averaging,
    comparing,
    grouping,
    inspecting,
    reporting,
    searching,
    sharing,
    starting,
    training,
)
from mtl_nlp.cli.options import report_progress
from mtl_nlp.cli.signals import EndingSignals, Interrupted, end_process_group
from mtl_nlp.errors import MtlNlpError, RunError
from mtl_nlp.messages import one_line
from mtl_nlp.recipe.own_code import import_module


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command and its options; by default the arguments of the process.

    Returns:
        The exit code: 0; 2 if the input cannot be used; 1 if a run failed although its input was valid; 130 after
        Ctrl-C; 143 after SIGTERM. One line on stderr then names the reason.
    """
    _escape_unprintable_characters()
    options = _parser().parse_args(arguments)
    report_progress()
    signals = EndingSignals()
    try:
        with signals.handled():
            for module in options.modules:
                import_module(module)
            options.command(options)
            end_process_group()
    except KeyboardInterrupt as error:
        if options.debug:
            traceback.print_exc()
        return signals.report(error)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MtlNlpError, OSError) as error:
        if options.debug:
            raise
        if signals.received is not None:  # an error that follows from the signal
            return signals.report(Interrupted(signals.received))
        print(f"mtl-nlp: error: {error if isinstance(error, MtlNlpError) else one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, MtlNlpError) else RunError.exit_code
    return signals.exit_code


def _escape_unprintable_characters() -> None:
    """Print characters that the encoding of the output lacks as escapes, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in {"strict", "surrogateescape"}:
            stream.reconfigure(errors="backslashreplace")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all other errors of the commands."""

    def error(self, message: str) -> NoReturn:
        """Print an error, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}. The options: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mtl-nlp", description="Multitask fine-tuning of transformer encoders.")
    parser.add_argument("--version", action="version", version=f"mtl-nlp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    topics = (starting, training, comparing, grouping, searching, reporting, inspecting, averaging, answering, sharing)
    for topic in topics:
        topic.add_commands(commands)
    return parser
