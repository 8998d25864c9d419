"""Pieces of the one-line messages that bad input gets."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def one_line(error: BaseException) -> str:
    """What another library's error says, in one line of at most 300 characters."""
    return f"{' '.join(str(error).split()):.300}"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`Did you mean 'x'?` with the nearest valid name, and all of them if they are few."""
    names = sorted(map(str, valid))
    nearest = get_close_matches(str(word), names, n=1, cutoff=0.0)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else "There is none."
    return hint if len(names) > 12 or len(names) < 2 else f"{hint} Valid: {', '.join(names)}."
