"""Parts of one-line messages about invalid input, tables, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def one_line(error: BaseException) -> str:
    """Return the message of a different library's error in one line of at most 300 characters."""
    return f"{' '.join(str(error).split()):.300}"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `Did you mean 'x'?` with the nearest valid name, and the list of all names if there are 2 to 12."""
    names = sorted(map(str, valid))
    nearest = get_close_matches(str(word), names, n=1, cutoff=0.0)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else "There are no valid names."
    return hint if len(names) > 12 or len(names) < 2 else f"{hint} Valid: {', '.join(names)}."


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as a text in columns below a header, with numbers aligned to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [bool(rows) and all(not isinstance(row[column], str) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def is_finite(value: Any) -> bool:
    """Return whether a value is not a float that is NaN or infinite."""
    return not isinstance(value, float) or math.isfinite(value)


def json_text(content: Any, **options: Any) -> str:
    """Return data as JSON, with null for floats that are NaN or infinite, since JSON has no such numbers.

    Args:
        content: the data.
        **options: options of `json.dumps`.
    """
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_with_null(content), ensure_ascii=False, allow_nan=False, **options)


def _with_null(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _with_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_null(value) for value in content]
    return content if is_finite(content) else None
