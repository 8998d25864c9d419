"""Markdown in which names from a recipe or a file are plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Characters that Markdown or HTML could read as markup. `:` and `www.` turn bare addresses into links, whereas `_`
# inside a word has no effect.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~#:@$]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.")


def escape(text: object) -> str:
    """Escape a text so that Markdown shows it as it is: on one line, without markup, HTML or links."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(str(text).split()))


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts, which are escaped."""
    return table_of_escaped([*map(escape, head)], ([*map(escape, row)] for row in rows))


def table_of_escaped(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts that are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
