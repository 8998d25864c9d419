"""Parts of one-line messages about invalid input, tables, JSON, and the concealment of values from the environment."""

from __future__ import annotations

import html
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_EXPANDED: dict[str, str] = {}
"""A value from the environment -> the variable, such as `${DATA}`."""

_SHORTEST_CONCEALED = 6
"""Shorter values, such as `true` or `16`, are part of ordinary words and numbers."""


def remember_expanded(value: str, variable: str) -> None:
    """Conceal a value from the environment in all later messages of this process.

    Args:
        value: the value. A value of fewer than 6 characters is not concealed.
        variable: the text that replaces the value in messages, such as `${DATA}`.
    """
    # Messages hold values as they are, quoted by `repr`, and on one line, and paths also in their absolute form.
    paths = [os.path.normpath(value), os.path.realpath(value)] if Path(value).is_absolute() else []
    for form in (value, repr(value)[1:-1], " ".join(value.split()), *paths):
        if len(form) >= _SHORTEST_CONCEALED:
            _EXPANDED[form] = variable


def conceal(text: str) -> str:
    """Return a text with the variable instead of each value that a recipe took from the environment."""
    for value in sorted(_EXPANDED, key=len, reverse=True):
        text = text.replace(value, _EXPANDED[value])
    return text


def one_line(error: BaseException) -> str:
    """Return the message of a different library's error in one line of at most 300 characters."""
    return f"{' '.join(conceal(str(error)).split()):.300}"


def shortened(value: object) -> str:
    """Return the `repr` of a value in at most 300 characters."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:299]}…"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `Did you mean 'x'?` with the nearest valid name if it is near, and the list of at most 12 valid names."""
    names = sorted(map(str, valid))
    if not names:
        return "There are no valid names."
    nearest = get_close_matches(str(word), names, n=1)  # difflib's cutoff of 0.6: a far name helps nobody
    hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
    if len(names) > 12:
        return hint or f"None of the {len(names)} valid names is similar."
    return hint if nearest and len(names) == 1 else f"{hint} Valid: {', '.join(names)}.".lstrip()


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with the words that agree with the number, such as `1 row has` and `2 rows have`.

    Args:
        count: the number.
        one: the words for one thing.
        many: the words for another number of things; by default, `one` with an `s`.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time such as `90s`, `15m` or `1.5h`; None if a text is not a time above 0."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", text)
    return float(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]] or None if found else None


def time_text(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, such as `90 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def in_terminal() -> bool:
    """Return whether stderr is a terminal that can redraw a line, and no log of a CI job."""
    is_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return sys.stderr.isatty() and not is_ci and os.environ.get("TERM") != "dumb"


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


class Shown:
    """An object whose `repr` is a short text, which notebooks show as it is."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


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
