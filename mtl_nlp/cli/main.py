"""The entry point of the command line: `mtl-nlp COMMAND`.

This module and the parsers of all commands import neither torch nor transformers, so that `--help` and errors in
options and recipes appear at once. Each command imports the modules that it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mtl_nlp._version import __version__
from mtl_nlp.cli import answering, sharing, training
from mtl_nlp.errors import MtlNlpError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command and its options; by default the arguments of the process.

    Returns:
        The exit code: 0; 2 if the input cannot be used; 1 if a run failed although its input was valid. One line on
        stderr then names the reason.
    """
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except MtlNlpError as error:
        if options.debug:
            raise
        print(f"mtl-nlp: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtl-nlp", description="Multitask fine-tuning of transformer encoders.")
    parser.add_argument("--version", action="version", version=f"mtl-nlp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for topic in (training, answering, sharing):
        topic.add_commands(commands)
    return parser
