"""The errors for users, with one-line messages. All errors derive from `MtlNlpError`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mtl_nlp.messages import conceal, one_line


class MtlNlpError(ValueError):
    """The base of all errors for users. The command line prints the message in one line and exits with `exit_code`.

    Args:
        message: the message. Values that a recipe took from the environment are replaced by their variables.
    """

    exit_code: ClassVar[int] = 2
    """2 for input that is not valid, 1 for a run that failed although its input was valid."""

    def __init__(self, message: str) -> None:
        super().__init__(conceal(message))


class RecipeError(MtlNlpError):
    """A recipe that cannot be used; the message names the key and the remedy."""


class DataError(MtlNlpError):
    """Data that cannot be used; the message names the file and line, or the dataset and row, and the data found."""


class ModelError(MtlNlpError):
    """A folder or repository without a usable multitask model."""


class CheckpointError(MtlNlpError):
    """A checkpoint from which training cannot resume."""


class RunError(MtlNlpError):
    """A run that failed although its input was valid, such as a run that diverged, filled the disk or lost a process.

    The message names the last complete checkpoint, if there is one.
    """

    exit_code = 1


class HubError(MtlNlpError):
    """A push that the Hub refused or did not receive; the message names the remedy."""


class ExportError(MtlNlpError):
    """A model or task that cannot be exported; the message names the reason and the remedy."""


class CommandError(MtlNlpError):
    """A command whose requirements are not met, such as a package of an extra or a free address to serve on."""


@contextlib.contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Turn the failed import of a package of one of mtl_nlp's extras into a `CommandError`.

    Args:
        name: the name of the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'mtl_nlp[{name}]'.") from error


@contextlib.contextmanager
def writing_to(path: Path, name: str = "output_dir", error_type: type[MtlNlpError] = RecipeError) -> Iterator[None]:
    """Turn a failure to write inside this context into an error for the user.

    Args:
        path: the folder or file that the context writes to.
        name: the option or recipe key that names the path, for the message.
        error_type: the class of the error: `RecipeError` for a path that was never written to, so the path is wrong;
            `RunError` for a path that was written to before, so the disk is full by now.

    Raises:
        MtlNlpError: of the given class, if the path cannot be written to.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise error_type(f"{name}: {path} cannot be written to: {one_line(error)}.") from error
