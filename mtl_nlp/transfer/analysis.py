"""Where the answers of one side, or of two sides, are right and wrong: everything that a report shows about a task."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.examples import Example, examples
from mtl_nlp.transfer.labels import Confusion, LabelScore, confusion, label_scores
from mtl_nlp.transfer.resampling import Runs, align_runs
from mtl_nlp.transfer.slices import Calibration, Slice, by_length, by_seen, calibration


@dataclass(frozen=True)
class SideAnalysis:
    """The answers of one side to one task, as means over its runs.

    Attributes:
        labels: scores per label by descending support; empty for numbers.
        confusion: the confusion matrix, or None for tasks without one class per unit.
        lengths: the score by number of words.
        seen: the score by words seen in training; empty if unknown.
        calibration: the calibration of probabilities, or None without probabilities.
    """

    labels: list[LabelScore]
    confusion: Confusion | None
    lengths: list[Slice]
    seen: list[Slice]
    calibration: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """Return the analysis as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Analysis:
    """The answers of two sides to one task.

    Attributes:
        a: the answers of side A.
        b: the answers of side B, or None for one side alone.
        only_a: texts that A answers correctly and B does not, the surest wrong answers first.
        only_b: texts that B answers correctly and A does not.
        only_a_total: the number of texts for `only_a`, before the list was cut.
        only_b_total: the number of texts for `only_b`.
    """

    a: SideAnalysis
    b: SideAnalysis | None = None
    only_a: list[Example] | None = None
    only_b: list[Example] | None = None
    only_a_total: int = 0
    only_b_total: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the analysis as plain data."""
        return asdict(self)


def analyse(a: Runs, b: Runs | None, task: Task) -> Analysis:
    """Analyse the answers of one side, or of two sides on the same texts.

    Args:
        a: the predictions of each run of side A.
        b: the predictions of each run of side B, or None.
        task: the task.

    Raises:
        DataError: if runs differ in their texts or gold labels, or labels do not fit the task.
    """
    align_runs(a, a if b is None else b, task)  # checks the texts and labels
    side = analyse_side(a, task)
    if b is None:
        return Analysis(side)
    (only_a, a_total), (only_b, b_total) = examples(a, b, task), examples(b, a, task)
    return Analysis(side, analyse_side(b, task), only_a, only_b, a_total, b_total)


def analyse_side(runs: Runs, task: Task) -> SideAnalysis:
    """Analyse the answers of one side, whose runs have the same texts."""
    # Slices are the same texts in every run.
    runs = [sorted(run, key=lambda text: (text.dataset, text.row)) for run in runs]
    return SideAnalysis(
        label_scores(runs, task), confusion(runs, task), by_length(runs, task), by_seen(runs, task), calibration(runs)
    )
