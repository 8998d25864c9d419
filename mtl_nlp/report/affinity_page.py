"""The effects of tasks on tasks: tables for the terminal, and the page `affinity.html` with heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_nlp.hub.comparison import Unit, unit_of
from mtl_nlp.messages import table
from mtl_nlp.report.blocks import Plot, Plots, Section, Table, Text
from mtl_nlp.report.heat_maps import heat_map, matrix_plot
from mtl_nlp.report.page import Verdict, render_page
from mtl_nlp.run_folder import write_file
from mtl_nlp.transfer.affinity_effects import HELPS, HURTS, UNCLEAR
from mtl_nlp.transfer.affinity_files import PAGE_NAME, Affinity
from mtl_nlp.transfer.affinity_measuring import describe_proposal

PERCENT = Unit(100, 2, "percent of the loss")
"""The unit of a look-ahead affinity."""

_HOW = {
    "look-ahead": "An effect is the share of a task's training loss that one step on the helping task takes away, the "
    "mean over {steps} steps of one joint training with a measurement every {every} steps. The intervals are Student's "
    "t over the measurements (95 %).",
    "pairwise": "An effect is the validation score of a task in the pair minus that of the task alone, for {share} of "
    "the recipe's training. The intervals cover the chance of {seeds} and of the validation rows (95 %).",
}
_RULE = (
    "An effect whose interval has 0 inside counts as none. The gain of a task is the mean effect of the other tasks in "
    "its group, and the predicted gain is the mean over all tasks; a task alone has 0."
)


def effects_table(content: Mapping[str, Any]) -> str:
    """Return the matrix of effects as text: a row per helping task, a column per task.

    Args:
        content: the content of `affinity.json`.
    """
    tasks = content["tasks"]
    rows = [
        [helper, *("" if task == helper else _cell(content, helper, task, " ") for task in tasks)] for helper in tasks
    ]
    return table(["helps →", *tasks], rows)


def groupings_table(content: Mapping[str, Any]) -> str:
    """Return the best groups for each number of encoders as text, with predicted gain and costs.

    Args:
        content: the content of `affinity.json`.
    """
    head, rows = _groupings(content)
    return table(head, rows)


def describe_measure(content: Mapping[str, Any]) -> str:
    """Return sentences on how the effects were measured and are counted.

    Args:
        content: the content of `affinity.json`.
    """
    measured = dict(content["measured"])
    if "share" in measured:
        count = len(measured["seeds"])
        measured["share"] = f"{measured['share']:.1%}"
        measured["seeds"] = f"{count} seeds" if count > 1 else "no seed (there is one)"
    return f"{_HOW[content['method']].format(**measured)} {_RULE}"


def write_affinity_page(affinity: Affinity) -> Path:
    """Write `affinity.html` into the folder of a measurement.

    Args:
        affinity: the result of the measurement.

    Returns:
        The path of the page.

    Raises:
        ModelError: if the page is a symbolic link.
    """
    content = affinity.content
    sections = [_effects_section(content), _groups_section(content)]
    text = render_page(
        title=f"Who helps whom? · {affinity.folder.name}",
        kicker=f"mtl_nlp affinity · {affinity.folder.name}",
        heading="Who helps whom?",
        subtitle=f"{len(content['tasks'])} tasks, at most {content['models']} encoders",
        verdicts=[Verdict("", " ".join(describe_proposal(content)), [], {})],
        caveats=[_RULE],
        advice=[],
        sections=sections,
        footer="Made by mtl_nlp from affinity.json alone.",
    )
    write_file(affinity.folder / PAGE_NAME, text)
    return affinity.folder / PAGE_NAME


def _effects_section(content: Mapping[str, Any]) -> Section:
    tasks, effects = content["tasks"], content["effects"]
    shown = [[_coloured(effects[helper].get(task)) for task in tasks] for helper in tasks]
    texts = [["" if task == helper else _cell(content, helper, task, "\n") for task in tasks] for helper in tasks]
    title = "Effect of the row's task on the column's task"
    svg = heat_map("affinity-effects", title, tasks, tasks, shown, texts=texts, labels=("is helped", "helps"))
    rows = [
        [helper, task, *_numbers(effect, _unit(content, task)), effect["word"]]
        for helper, own in effects.items()
        for task, effect in own.items()
    ]
    numbers = Table(title, ["helps", "is helped", "effect", "95 % interval", "unit", "word"], rows)
    plots = [Plot(svg, numbers), *_cosines(content)]
    note = "Blue helps, orange hurts; cells without colour are not beyond chance."
    return Section("effects", "Effects", [Text(describe_measure(content)), Plots(plots, (), note)])


def _coloured(effect: Mapping[str, Any] | None) -> float | None:
    """Return an effect that is beyond chance; None for the others and for a task's effect on itself."""
    return None if effect is None or effect["word"] == UNCLEAR else effect["value"]


def _cosines(content: Mapping[str, Any]) -> list[Plot]:
    """Return the heat map of the gradients' cosines; an empty list if they were not measured."""
    if not content.get("cosines"):
        return []
    tasks = content["tasks"]
    means = {frozenset(each["tasks"]): each["mean"] for each in content["cosines"]}
    values = [[None if a == b else means[frozenset((a, b))] for b in tasks] for a in tasks]
    return [matrix_plot("affinity-cosines", "Mean cosine of the gradients", tasks, values)]


def _groups_section(content: Mapping[str, Any]) -> Section:
    head, rows = _groupings(content)
    return Section("groups", "Groups", [Table("Best groups for each number of encoders", head, rows)])


def _groupings(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    unit = _common_unit(content)
    head = ["encoders", f"predicted gain ({unit.name})", "passes per text", "training", "groups", ""]
    rows = [
        [
            str(each["models"]),
            unit.change(each["gain"]),
            str(each["answering_passes"]),
            f"{each['training']:.2f} × joint",
            " | ".join(_group(group) for group in each["groups"]),
            "proposed" if each["chosen"] else "",
        ]
        for each in content["groupings"]
    ]
    return head, rows


def _group(group: Mapping[str, Sequence[str]]) -> str:
    helpers = [task for task in group["tasks"] if task not in group["serves"]]
    return ", ".join(group["serves"]) + (f" (+ {', '.join(helpers)})" if helpers else "")


def _cell(content: Mapping[str, Any], helper: str, task: str, separator: str) -> str:
    effect, unit = content["effects"][helper][task], _unit(content, task)
    if effect["value"] is None:
        return "not measured"
    margin = "" if effect["low"] is None else f" ± {unit.value((effect['high'] - effect['low']) / 2)}"
    word = {HELPS: "helps", HURTS: "hurts"}.get(effect["word"], "")
    return f"{unit.change(effect['value'])}{margin}{separator}{word}".rstrip()


def _numbers(effect: Mapping[str, Any], unit: Unit) -> tuple[str, str, str]:
    return unit.change(effect["value"]), unit.interval(effect), unit.name


def _unit(content: Mapping[str, Any], task: str) -> Unit:
    return PERCENT if "metrics" not in content else unit_of(content["metrics"][task])


def _common_unit(content: Mapping[str, Any]) -> Unit:
    """Return the unit of a mean over tasks: that of all tasks, or the plain number if they have different units."""
    units = {_unit(content, task) for task in content["tasks"]}
    return units.pop() if len(units) == 1 else Unit(1, 4, "score")
