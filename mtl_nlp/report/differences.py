"""The section on where the sides differ: labels, confusions, texts, lengths, unseen words and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from mtl_nlp.errors import DataError
from mtl_nlp.hub.comparison import count_text, unit_of
from mtl_nlp.messages import one_line
from mtl_nlp.report.blocks import Example, Examples, Fold, Plot, Plots, Section, Table, Text, short
from mtl_nlp.report.material import OWN, Material
from mtl_nlp.report.plots import Series, calibration_plot
from mtl_nlp.report.scores import legend, places_of
from mtl_nlp.transfer.analysis import Analysis, SideAnalysis, analyse
from mtl_nlp.transfer.examples import Example as FoundExample
from mtl_nlp.transfer.slices import Slice

_MOST_LABELS = 40
"""The number of labels in the table of scores per label."""

_MOST_CONFUSED = 14
"""The number of labels in a confusion matrix. A larger one would not fit the page."""


class Limits(NamedTuple):
    """The amount of detail on the page.

    Attributes:
        tasks: the number of tasks with curves and analyses.
        examples: the number of texts that a side answers correctly and another does not.
        texts: whether texts may be shown at all.
    """

    tasks: int
    examples: int
    texts: bool = True


def differences_section(material: Material, tasks: Sequence[str], limits: Limits) -> Section:
    """Return the section on where the sides differ, with a part for each task.

    Args:
        material: the content of the report.
        tasks: the tasks to show.
        limits: the amount of detail.
    """
    title = "Where the answers are right and wrong" if material.comparison is None else "Where the sides differ"
    section = Section("differences", title)
    for number, name in enumerate(tasks):
        blocks = _task_blocks(material, name, number, limits)
        if blocks:
            section.blocks.append(Fold(name, blocks, open=len(tasks) == 1))
    if not section.blocks:
        section.blocks.append(Text("The runs have no predictions."))
        return section
    if not limits.texts:
        section.blocks.insert(0, Text("The page was made without texts of the datasets."))
    elif limits.examples == 0:
        section.blocks.insert(0, Text("Examples are left out, so that the page stays below 2 MB."))
    if len(tasks) < len(material.task_names):
        rest = len(material.task_names) - len(tasks)
        section.blocks.append(Text(f"{rest} further tasks are left out, so that the page stays below 2 MB."))
    return section


def _task_blocks(material: Material, name: str, number: int, limits: Limits) -> list[object]:
    reference = None if material.comparison is None else material.comparison["reference"]
    pairs: dict[str, Analysis] = {}
    for side in material.joint:
        runs = material.predictions(side, name)
        others = None if reference is None else material.predictions(reference, name)
        if name not in material.tasks or not runs or others == []:
            continue
        try:
            pairs[side] = material.analysed(side, name, partial(analyse, runs, others, material.tasks[name]))
        except DataError as error:
            return [Text(f"The answers of {side} cannot be analysed: {one_line(error)}")]
    if not pairs:
        return []
    sides = {side: pair.a for side, pair in pairs.items()}
    first = next(iter(pairs.values()))
    if reference is not None and first.b is not None:
        sides = {reference: first.b, **sides}
    blocks: list[object] = [
        *_label_table(sides),
        *_slice_tables(sides),
        *_calibration(material, name, number, sides),
        *_confusions(name, sides),
    ]
    if limits.texts and limits.examples and reference is not None:
        for side, pair in pairs.items():
            blocks += _examples(side, reference, pair, limits.examples)
    return blocks


def _label_table(sides: Mapping[str, SideAnalysis]) -> list[Table]:
    """Return the F1 of each label on all sides; for a single side with precision and recall."""
    first = next(iter(sides.values()))
    if not first.labels:
        return []
    labels = [score.label for score in first.labels][:_MOST_LABELS]
    percent = unit_of("f1").value
    if len(sides) == 1:
        rows = [[s.label, s.support, *map(percent, (s.precision, s.recall, s.f1))] for s in first.labels[:_MOST_LABELS]]
        head = ["label", "in gold", "precision", "recall", "F1"]
    else:
        of = {side: {score.label: score.f1 for score in analysis.labels} for side, analysis in sides.items()}
        support = {score.label: score.support for score in first.labels}
        rows = [[label, support[label], *(percent(of[side].get(label, 0.0)) for side in sides)] for label in labels]
        head = ["label", "in gold", *(f"F1, {side}" for side in sides)]
    more = len(first.labels) - len(labels)
    caption = "Scores per label" + (f", the most frequent {len(labels)} of {len(first.labels)}" if more > 0 else "")
    return [Table(caption, head, rows)]


def _slice_tables(sides: Mapping[str, SideAnalysis]) -> list[Table]:
    """Return the scores by length and by words seen in training."""
    choices: tuple[tuple[str, Callable[[SideAnalysis], list[Slice]]], ...] = (
        ("by length of the text", lambda side: side.lengths),
        ("by words seen in training", lambda side: side.seen),
    )
    tables = []
    for title, choose in choices:
        of = {side: {part.name: part for part in choose(analysis)} for side, analysis in sides.items()}
        parts = next(iter(of.values()))
        if not parts:
            continue
        score = next(iter(parts.values())).score
        rows = [
            [name, f"{part.units} {part.unit}", *(_slice_value(of[side].get(name)) for side in sides)]
            for name, part in parts.items()
        ]
        caption = f"{score[:1].upper()}{score[1:]} {title}"
        tables.append(Table(caption, ["part", "size", *(sides if len(sides) > 1 else ["score"])], rows))
    return tables


def _slice_value(part: Slice | None) -> str:
    return "not defined" if part is None else unit_of(part.score).value(part.value)


def _calibration(material: Material, name: str, number: int, sides: Mapping[str, SideAnalysis]) -> list[object]:
    series = []
    rows = []
    for side, analysis in sides.items():
        if (found := analysis.calibration) is None:
            continue
        place = 1 if side == OWN else places_of(material)[side]
        series.append(Series(side, place, [(each.confidence, each.accuracy) for each in found.bins]))
        rows.append([side, f"{100 * found.error:.2f}"])
    if not series:
        return []
    table = Table("Expected calibration error, 15 bins (Guo et al. 2017)", ["side", "%"], rows)
    plot = Plot(calibration_plot(f"calibration-{number}", f"Calibration, {name}", series), table)
    errors = ", ".join(f"{error} %" if side == OWN else f"{side} {error} %" for side, error in rows)
    return [Plots([plot], legend(material, f"calibration-{number}"), f"Expected calibration error: {errors}.")]


def _confusions(name: str, sides: Mapping[str, SideAnalysis]) -> list[object]:
    tables: list[object] = []
    for side, analysis in sides.items():
        if (found := analysis.confusion) is None:
            continue
        size = min(len(found.labels), _MOST_CONFUSED)
        labels = [short(label, 24) for label in found.labels[:size]]
        rows = [
            [label, *(count_text(count) for count in found.counts[place][:size])] for place, label in enumerate(labels)
        ]
        heat = [[count / (sum(row) or 1) for count in row[:size]] for row in found.counts[:size]]
        shown = "" if size == len(found.labels) else f", the most frequent {size} labels"
        where = "" if side == OWN else f", {side}"
        tables.append(Table(f"Gold labels (rows) and answers (columns){where}{shown}", ["gold", *labels], rows, heat))
    return [Fold(f"Confusion matrices of {name}", tables)] if tables else []


def _examples(side: str, reference: str, pair: Analysis, limit: int) -> list[object]:
    """Return the texts that the reference alone answers correctly, and those that the joint side alone does."""
    blocks: list[object] = []
    found = ((reference, side, pair.only_b, pair.only_b_total), (side, reference, pair.only_a, pair.only_a_total))
    for right, wrong, examples, total in found:
        if not examples:
            continue
        are_numbers = isinstance(examples[0].gold, int | float)
        how = (
            f"{right} is closer to the label than {wrong}" if are_numbers else f"{right} is right and {wrong} is wrong"
        )
        shown = [_example(each, right, wrong, marked=not are_numbers) for each in examples[:limit]]
        blocks.append(Examples(f"Texts on which {how}: {min(limit, total)} of {total}", shown))
    return blocks or [Text(f"There is no text on which only one of {side} and {reference} is right in most seeds.")]


def _example(found: FoundExample, right: str, wrong: str, *, marked: bool) -> Example:
    answers = [
        ("gold", _answer(found.gold, found.words), True),
        (right, _answer(found.right, found.words), True),
        (wrong, _answer(found.wrong, found.words), not marked),
    ]
    sure = "" if found.sure is None or not marked else f", {wrong} was {found.sure:.0%} sure"
    return Example(f"{found.dataset}, row {found.row}{sure}", found.text, answers, marked)


def _answer(label: Any, words: Sequence[str] | None) -> str:
    """Return a label as text: word by word, as a set, or as a number."""
    if isinstance(label, list) and words is not None:
        return short("  ".join(f"{word}/{tag}" for word, tag in zip(words, label, strict=True)), 400)
    if isinstance(label, list):
        return short(", ".join(map(str, label)) or "no label", 400)
    return f"{label:.4g}" if isinstance(label, float) else short(str(label))
