"""The hint at the end of a message about an unknown name. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_MOST_NAMES = 12


def hint(word: Any, valid: Iterable[str]) -> str:
    """Return `Did you mean 'x'?` with the nearest valid name if it is near, or else the first valid names.

    Args:
        word: the unknown name.
        valid: the valid names; without any, the hint is empty.
    """
    names = list(valid)
    near = get_close_matches(str(word), names, n=1)  # difflib's cutoff of 0.6: a far name helps nobody
    if near:
        return f"Did you mean {near[0]!r}?"
    more = ", …" if len(names) > _MOST_NAMES else "."
    return f"Valid: {', '.join(names[:_MOST_NAMES])}{more}" if names else ""
