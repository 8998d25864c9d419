"""The errors for users, with one-line messages. All errors derive from `MtlNlpError`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from mtl_nlp.messages import conceal


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
