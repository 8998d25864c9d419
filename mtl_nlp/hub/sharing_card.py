"""The section of the model card on the comparison that belongs to a model: the words and table of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.hub.comparison import comparison_of, comparison_rows, cost_rows, has_run, joint_sides, read_comparison
from mtl_nlp.hub.markdown import escape, table_of
from mtl_nlp.hub.sharing_words import caveats, task_statements, whole_statement
from mtl_nlp.messages import conceal
from mtl_nlp.recipe.local_paths import without_local_paths

HOW = (
    "The 95 % intervals cover seeds and texts and are unadjusted; the words are by p-values that Holm's method adjusts "
    "over the tasks."
)
"""The note below each table of a comparison."""


def sharing_section(folder: Path) -> str:
    """Return the section on the comparison of a model as Markdown.

    The section is about the side whose run the folder is; about all sides if the comparison lies in the folder itself.

    Args:
        folder: the model's folder.

    Returns:
        The section without its heading; empty if no comparison belongs to the folder, or if the folder is a run of the
        reference, such as a single-task run, since nothing is shared there.

    Raises:
        DataError: if `comparison.json` is damaged.
    """
    path = comparison_of(folder)
    if path is None:
        return ""
    comparison = read_comparison(path)
    sides = joint_sides(comparison)
    if path.parent.resolve() != folder.resolve():
        sides = [side for side in sides if has_run(comparison["sides"][side], path.parent, folder)]
    return _section(comparison, sides) if sides else ""


def _section(comparison: Mapping[str, Any], sides: list[str]) -> str:
    parts = []
    for side in sides:
        lead = f"**{escape(side)}**: " if len(sides) > 1 else ""
        parts.append(f"{lead}{escape(whole_statement(comparison, side))}")
        parts.append("\n".join(f"- {escape(each.text)}" for each in task_statements(comparison, side)))
    parts.append(table_of(*comparison_rows(comparison, sides)))
    costs = cost_rows(comparison)
    parts += [table_of(*costs)] if costs[1] else []
    parts.append(f"The scores are on {escape(comparison['split'])}; number of seeds: {len(comparison['seeds'])}. {HOW}")
    parts += [escape(without_local_paths(conceal(text))) for text in caveats(comparison)]
    return "\n\n".join(parts)
