"""The section on what tasks share."""

from __future__ import annotations

from comparison_folder import METRICS, TASKS, write_comparison, write_run
from insight_folder import write_insight

from mtl_nlp.report.insight import insight_section
from mtl_nlp.report.material import read_material

NAMES = [task.name for task in TASKS]
SCORES = [METRICS[task.type] for task in TASKS]


def test_a_run_without_the_files_has_no_section(tmp_path):
    assert insight_section(read_material(write_run(tmp_path / "run", texts=1)), NAMES) is None


def test_a_run_has_an_open_part_for_each_file(tmp_path):
    folder = write_insight(write_run(tmp_path / "run", texts=1), NAMES, SCORES)
    section = insight_section(read_material(folder), NAMES)
    assert [(fold.summary, fold.open) for fold in section.blocks] == [
        ("Conflict of the tasks' gradients", True),
        ("Inspection of the model", True),
    ]
    (folder / "conflict.json").unlink()
    assert len(insight_section(read_material(folder), NAMES).blocks) == 1
    assert insight_section(read_material(folder), []) is None


def test_a_comparison_shows_the_first_run_of_each_joint_side(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1, 2), texts=1)
    write_insight(folder / "runs" / "hard-2-0", NAMES, SCORES)
    write_insight(folder / "runs" / "adapters-1-0", NAMES, SCORES)
    section = insight_section(read_material(folder), NAMES)
    assert [(fold.summary, fold.open) for fold in section.blocks] == [
        ("Conflict of the tasks' gradients: hard", False),
        ("Inspection of the model: hard", False),
        ("Conflict of the tasks' gradients: adapters", False),
        ("Inspection of the model: adapters", False),
    ]
