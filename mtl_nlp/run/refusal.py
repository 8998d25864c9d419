"""The errors of Trainer, accelerate and torch on training arguments, as one line for users."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection

from mtl_nlp.errors import MtlNlpError, RecipeError
from mtl_nlp.messages import one_line

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The errors with which the libraries refuse training arguments."""

_OPTION = re.compile(r"--(\w+) ")
_OF_TRACKER = re.compile(r"\w+Callback requires ")

_CLEAR = (ImportError, OSError, RuntimeError, ValueError)


def refused(error: BaseException) -> MtlNlpError:
    """Return the error for users for an error of the libraries on training arguments; errors for users stay."""
    if isinstance(error, MtlNlpError):
        return error
    reason = one_line(error)
    if option := _OPTION.match(reason):  # transformers names its options as on a command line of its own
        return RecipeError(f"training.{option[1]}: {reason[option.end() :]}")
    if _OF_TRACKER.match(reason):
        return RecipeError(f"training.report_to: {reason}")
    if isinstance(error, _CLEAR) and reason:
        return RecipeError(f"training: {reason}")
    return RecipeError(  # the message of a KeyError is a key
        f"training: {type(error).__name__}: {reason or 'no reason given'}. The libraries may not accept these "
        f"arguments; `mtl-nlp --debug` shows where the error comes from."
    )


def is_of_own_code(error: BaseException, own_code: Collection[str]) -> bool:
    """Return whether a module of the recipe had a part in an error.

    Args:
        error: the error.
        own_code: the names or paths of the modules, see `Recipe.own_code`.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") in own_code or frame.f_code.co_filename in own_code for frame in frames)
