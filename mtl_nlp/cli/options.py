"""Options, checks and error messages of several commands."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.messages import in_terminal


def add_command(
    commands: Any, function: Callable[[argparse.Namespace], None], help_text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command to the command line.

    Args:
        commands: the subparsers of the command line.
        function: runs the command; the command has the function's name, and the docstring is its description.
        help_text: one line for the list of commands.
        example: a command line, shown at the end of the command's help.

    Returns:
        The parser of the command, to which the caller adds the options.
    """
    parser = commands.add_parser(
        function.__name__,
        help=help_text,
        description=function.__doc__,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of yours first, such as the one that registers the heads of a saved model",
    )
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the options `--set` and `--allow-code` of a command that reads a recipe."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a recipe key")
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="run the Python code that the recipe names under `imports`, `filter` and `map`",
    )


def positive_integer(text: str) -> int:
    """Return the integer in a text.

    Raises:
        argparse.ArgumentTypeError: if the text is not an integer of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be an integer of at least 1. Found {text!r}")
    return int(text)


def quiet_libraries() -> None:
    """Silence the log messages of the libraries that the commands use."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    # Notes on a library's future names are for programmers; `gradient_checkpointing` in a recipe works as it stands.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(accelerate|datasets|peft|torch|transformers)\b")
    # Their reports on loading name layers that only the stock classes have. Users need not act on them.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not in_terminal():  # a bar in a pipe or the log of a CI job is a line of carriage returns
        datasets.disable_progress_bars()
    # These libraries log a message before they raise an error. The error's one line has the same message.
    hub_logging.set_verbosity_error()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)


def report_progress(*, when_piped: bool = False) -> None:
    """Print the stages of the work, such as the loading of data, in the main process.

    Args:
        when_piped: whether to print the stages to stdout if stderr is not a terminal, instead of leaving them out.
    """
    logger = logging.getLogger("mtl_nlp")
    for handler in logger.handlers:
        if isinstance(handler, _StageHandler):
            logger.removeHandler(handler)
    if os.environ.get("RANK", "0") == "0" and (when_piped or in_terminal()):
        logger.addHandler(_StageHandler())
        logger.setLevel(logging.INFO)


class _StageHandler(logging.Handler):
    """A handler that prints the stages of the work to a terminal or to stdout, and warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        is_error = record.levelno >= logging.WARNING
        print(record.getMessage(), file=sys.stderr if is_error or in_terminal() else sys.stdout, flush=True)


def new_folder(path: str, name: str = "OUT") -> Path:
    """Check that a folder for output is new or empty, before any work is done.

    Args:
        path: the folder.
        name: the option that names the folder, for the message.

    Raises:
        CommandError: if the path is a file, or the folder is not empty.
    """
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise CommandError(f"{name}: {folder} should be a new or empty folder.")
    return folder


def writable_file(path: str, *inputs: str, option: str = "--output") -> Path:
    """Check that a file can be written, before any computation.

    Args:
        path: the file.
        *inputs: the files and folders that the command reads, or Hub ids.
        option: the option that names the file, for the message.

    Raises:
        DataError: if the path is a folder, the folder of the file does not exist, or the command reads the file.
    """
    read = [Path(name).resolve() for name in inputs if Path(name).exists()]
    file = Path(path).resolve()
    if file.exists() and any(file == each or each in file.parents for each in read):
        raise DataError(f"{option} {path}: the command reads this file. Name a different file.")
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise DataError(f"{option} {path}: should be a file in an existing folder.")
    return Path(path)
