"""The section on what tasks share and what is a task's own: conflict in training, and the inspection of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtl_nlp.report.blocks import Fold, Section
from mtl_nlp.report.conflict_plots import conflict_blocks
from mtl_nlp.report.inspection_plots import inspection_blocks
from mtl_nlp.report.material import Material, RunFiles

_PARTS: tuple[tuple[str, Callable[[RunFiles, str, Sequence[str]], list[object]]], ...] = (
    ("Conflict of the tasks' gradients", conflict_blocks),
    ("Inspection of the model", inspection_blocks),
)


def insight_section(material: Material, tasks: Sequence[str]) -> Section | None:
    """Return the section on what tasks share, or None if no run has an inspection or measured conflict.

    Each joint side of a comparison is shown by its first run with these files.

    Args:
        material: the content of the report.
        tasks: the tasks to draw.
    """
    section = Section("insight", "What is shared, and what is a task's own")
    several = len(material.joint) > 1
    for number, side in enumerate(material.joint):
        for title, build in _PARTS:
            built = (build(run, f"insight-{number}", tasks) for run in material.runs[side])
            if (blocks := next(filter(None, built), None)) is not None:
                titled = f"{title}: {side}" if several else title
                section.blocks.append(Fold(titled, blocks, open=material.comparison is None))
    return section if section.blocks else None
