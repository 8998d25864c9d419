"""The errors of Trainer, accelerate and torch on training arguments, as one line for users."""

from __future__ import annotations

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

_CLEAR = (ImportError, OSError, RuntimeError, ValueError)


def refused(error: BaseException) -> MtlNlpError:
    """Return the error for users for an error of the libraries on training arguments; errors for users stay."""
    if isinstance(error, MtlNlpError):
        return error
    reason = one_line(error)
    if not isinstance(error, _CLEAR) or not reason:  # the message of a KeyError is a key
        reason = f"the libraries do not accept these arguments ({type(error).__name__}: {reason})"
    return RecipeError(f"training: {reason}")
