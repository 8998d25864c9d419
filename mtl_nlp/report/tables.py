"""The table of a comparison for terminals, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mtl_nlp.hub.comparison import (
    COSTS,
    PERCENT,
    Unit,
    comparison_rows,
    cost_of,
    cost_rows,
    difference_of,
    joint_sides,
    spread_of,
    unit_of,
)
from mtl_nlp.hub.markdown import table_of
from mtl_nlp.hub.sharing_card import HOW
from mtl_nlp.hub.sharing_words import caveats
from mtl_nlp.messages import table

Format = Literal["text", "markdown", "latex", "csv"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
}
"""Characters that LaTeX would read as commands, and those that its text fonts lack."""

_CSV_HEAD = (
    *("task", "score", "unit", "side", "reference", "mean", "sd", "reference_mean", "reference_sd"),
    *("delta", "low", "high", "p_holm", "smallest", "word"),
)


def comparison_table(comparison: Mapping[str, Any], format: Format) -> str:
    """Return the table of a comparison: each task's scores, difference, interval and word, Δm, and the costs.

    Shares such as accuracy and F1 are in percent and their differences in points, with two decimals. Correlations and
    errors are as they are, with four decimals. Below the tables are the sentences that limit their meaning.

    Args:
        comparison: the content of `comparison.json`.
        format: `text` (for a terminal), `markdown`, `latex` (for the package booktabs) or `csv`. The CSV has plain
            numbers, and the costs of each side as further rows.
    """
    if format == "csv":
        return _csv(comparison)
    parts = {"text": _text, "markdown": table_of, "latex": _latex}[format]
    scores, costs = comparison_rows(comparison), cost_rows(comparison)
    tables = [parts(*scores), *([parts(*costs)] if costs[1] else [])]
    has_interval = any(
        d.get("low") is not None for task in comparison["tasks"].values() for d in task["differences"].values()
    )
    notes = [*([HOW] if has_interval else []), *caveats(comparison)]
    return "\n\n".join([*tables, *(f"% {note}" if format == "latex" else note for note in notes)]) + "\n"


def _text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(head, rows)


def _latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        _latex_line(head),
        r"\midrule",
        *map(_latex_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_line(cells: Iterable[str]) -> str:
    return rf"{' & '.join(map(latex_escape, cells))} \\"


def latex_escape(text: str) -> str:
    """Return a text on one line in which LaTeX reads no character as a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _csv(comparison: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    reference = comparison["reference"]
    for name, task in comparison["tasks"].items():
        unit = unit_of(task["metric"])
        for side in joint_sides(comparison):
            found = difference_of(comparison, name, side) or {}
            spreads = [spread_of(task["values"].get(each)) for each in (side, reference)]
            row = [name, task["metric"], "percent" if unit.factor == 100 else task["metric"], side, reference]
            row += [_plain(value, unit) for spread in spreads for value in spread]
            row += [_plain(found.get(key), unit) for key in ("delta", "low", "high")]
            row += ["" if found.get("p_holm") is None else f"{found['p_holm']:.4g}"]
            writer.writerow([*row, _plain(found.get("smallest"), unit), found.get("word") or ""])
    for side in joint_sides(comparison):
        if (mean := (comparison.get("delta_m") or {}).get(side)) is not None:
            ends = [_plain(mean[key], PERCENT) for key in ("value", "low", "high")]
            writer.writerow(["", "delta_m", "percent", side, reference, "", "", "", "", *ends, "", "", ""])
    for side in comparison["sides"]:
        for key in COSTS:
            if (cost := cost_of(comparison, side, key)) is not None:
                writer.writerow(["", key, "", side, "", f"{cost:.10g}", *[""] * 9])
    return buffer.getvalue()


def _plain(value: float | None, unit: Unit) -> str:
    """Return a number in its unit for programs: with a plain minus, and empty if it is not defined."""
    return "" if value is None else f"{value * unit.factor:.{unit.digits}f}"
