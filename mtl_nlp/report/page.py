"""The page `report.html`: one file without scripts and requests, made from the files of a run or a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from mtl_nlp.hub.comparison import difference_of, joint_sides
from mtl_nlp.hub.sharing_words import HELPED, HURT, UNCLEAR, Statement, caveats, task_statements, whole_statement
from mtl_nlp.messages import counted
from mtl_nlp.report.advice import advice
from mtl_nlp.report.blocks import Code, Fold, Section, Table, Text, short
from mtl_nlp.report.curves import training_section
from mtl_nlp.report.differences import Limits, differences_section
from mtl_nlp.report.insight import insight_section
from mtl_nlp.report.material import OWN, Material, read_material
from mtl_nlp.report.scores import HOW, cost_section, learning_curves, run_scores_section, scores_section
from mtl_nlp.run_folder import REPORT_NAME, write_file

LARGEST = 2_000_000
"""The number of bytes that the page stays below."""

_LIMITS = (Limits(16, 12), Limits(8, 4), Limits(4, 0), Limits(0, 0))
"""The tasks in detail and the examples of each, from the first choice to the last. The page states the numbers."""

_LONGEST_RECIPE = 50_000
"""The number of characters of a recipe on the page. `recipe.yaml` has the complete recipe."""

_FOLDED_ABOVE = 8
"""The number of tasks above which the first screen shows only the first sentences about each word."""

_SHOWN = {HURT: 8, None: 4, HELPED: 4, UNCLEAR: 0}
"""The number of sentences about each word on the first screen, if there are many tasks."""


class Verdict(NamedTuple):
    """The first screen's part on one side.

    Attributes:
        title: the side; empty if there is only one.
        whole: the sentence on all tasks and the cost.
        statements: the sentences on the tasks.
        folded: further sentences, hidden behind a line, by line.
    """

    title: str
    whole: str
    statements: list[Statement]
    folded: dict[str, list[Statement]]


def write_report(folder: Path, examples: bool = True) -> Path:
    """Write `report.html` into the folder of a run or a comparison.

    Args:
        folder: the folder. It is a comparison if it has `comparison.json`.
        examples: whether the page quotes texts of the datasets.

    Returns:
        The path of the page.

    Raises:
        DataError: if the folder is neither, or a file is damaged.
        ModelError: if the page is a symbolic link.
    """
    text = report_page(folder, examples)
    write_file(folder / REPORT_NAME, text)
    return folder / REPORT_NAME


def report_page(folder: Path, examples: bool = True, name: str | None = None) -> str:
    """Return the page as HTML of less than 2 MB, see `write_report`. It has no local paths.

    Args:
        folder: the folder of a run or a comparison.
        examples: whether the page quotes texts of the datasets.
        name: the name on the page, such as that of a repository; by default the folder's.
    """
    material = read_material(folder)
    if name is not None:
        material = replace(material, name=name)
    text = ""
    for limits in _LIMITS:
        text = _page(material, limits if examples else limits._replace(texts=False))
        if len(text.encode()) < LARGEST:
            break
    return text


def _page(material: Material, limits: Limits) -> str:
    comparison = material.comparison
    return render_page(
        title=f"{'Did sharing help?' if comparison else 'Report'} · {material.name}",
        kicker=f"mtl_nlp report · {material.name}",
        heading="Did sharing help?" if comparison else f"The run {material.name}",
        subtitle=_subtitle(material),
        verdicts=list(_verdicts(material)),
        caveats=_caveats(material),
        advice=advice(material),
        sections=list(_sections(material, limits)),
        footer=f"Made by mtl_nlp from the files of {'the comparison' if comparison else 'the run'} alone.",
    )


def render_page(**parts: Any) -> str:
    """Return a page in the form of the report.

    Args:
        **parts: the variables of the template `page.html.j2`, without the words for effects.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtl_nlp", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    words = {HURT: "hurt", HELPED: "helped", UNCLEAR: "unclear"}
    return environment.get_template("page.html.j2").render(words=words, **parts)


def _subtitle(material: Material) -> str:
    comparison = material.comparison
    if comparison is None:
        return f"{counted(len(material.tasks), 'task')}, one encoder, no comparison with single-task runs yet"
    sides = comparison["sides"]
    titles = ", ".join(f"{side} ({sides[side]['title']})" for side in joint_sides(comparison))
    reference = sides[comparison["reference"]]["title"]
    matched = {"passes": ", equal passes over each task's rows", "compute": ", equal encoder passes in training"}
    return (
        f"{titles} against {reference} on {comparison['split']}: {counted(len(comparison['tasks']), 'task')}, "
        f"{counted(len(comparison['seeds']), 'seed')}{matched.get(comparison['match'], '')}"
    )


def _verdicts(material: Material) -> Iterator[Verdict]:
    comparison = material.comparison
    if comparison is None:
        score = material.runs[OWN][0].results.get("mtl_score")
        mean = "" if score is None else f" The mean of the tasks' primary scores is {100 * score:.1f}."
        whole = f"Nothing is known yet about the effect of sharing: there are no single-task runs beside it.{mean}"
        yield Verdict("", whole, [], {})
        return
    sides = joint_sides(comparison)
    for side in sides:
        title = f"{side} ({comparison['sides'][side]['title']})" if len(sides) > 1 else ""
        shown, folded = _first_of(task_statements(comparison, side))
        yield Verdict(title, whole_statement(comparison, side), shown, folded)


def _first_of(statements: list[Statement]) -> tuple[list[Statement], dict[str, list[Statement]]]:
    """Return the sentences for the first screen, and the others by the line that opens them."""
    if len(statements) <= _FOLDED_ABOVE:
        return statements, {}
    groups = {word: [each for each in statements if each.word == word] for word in _SHOWN}
    shown = [each for word, group in groups.items() for each in group[: _SHOWN[word]]]
    rest = {word: group[_SHOWN[word] :] for word, group in groups.items() if len(group) > _SHOWN[word]}
    return shown, {
        f"{counted(len(group), 'further task')}: {word or 'no verdict'}": group for word, group in rest.items()
    }


def _caveats(material: Material) -> list[str]:
    found = [] if material.comparison is None else caveats(material.comparison)
    if material.missing:
        found.append(
            f"The folders of {counted(material.missing, 'run')} are missing: their curves and predictions are left out."
        )
    return found


def _sections(material: Material, limits: Limits) -> Iterator[Section]:
    comparison = material.comparison
    detailed = _most_telling(material, limits.tasks)
    if comparison is None:
        yield run_scores_section(material)
    else:
        scores = scores_section(material, comparison)
        scores.blocks += learning_curves(material, comparison, detailed)
        if comparison["notes"]:
            notes = list(enumerate(comparison["notes"], start=1))
            scores.blocks.append(Table("Notes, such as reasons for missing values", ["number", "note"], notes))
        yield scores
        yield cost_section(material, comparison)
    yield training_section(material, detailed)
    if (insight := insight_section(material, detailed)) is not None:
        yield insight
    yield differences_section(material, detailed, limits)
    yield _settings(material)
    yield _provenance(material)


def _most_telling(material: Material, number: int) -> list[str]:
    """Return the tasks to show in detail: those with a word of gain or loss first, then those that changed most."""
    names = material.task_names
    comparison = material.comparison
    if comparison is None or len(names) <= number:
        return names[:number]

    def rank(task: str) -> tuple[bool, float]:
        found = [difference_of(comparison, task, side) or {} for side in joint_sides(comparison)]
        sizes = [abs(each["delta"]) for each in found if each.get("delta") is not None]
        return any(each.get("word") in {HURT, HELPED} for each in found), max(sizes, default=0.0)

    chosen = sorted(names, key=rank, reverse=True)[:number]
    return [name for name in names if name in chosen]


def _settings(material: Material) -> Section:
    section = Section("settings", "Settings")
    comparison = material.comparison
    if comparison is None:
        own = material.runs[OWN][0].recipe
        section.blocks.append(Text("The run has no recipe.") if own is None else _code(own.to_yaml(), "recipe"))
        return section
    if comparison["differs"]:
        rows = [[place, text] for place, text in enumerate(comparison["differs"], start=1)]
        section.blocks.append(Table("Differences between the sides' settings", ["number", "difference"], rows))
    else:
        section.blocks.append(Text("The comparison lists no differences between the sides' settings."))
    for side, recipe in comparison["provenance"]["recipes"].items():
        section.blocks.append(Fold(f"Recipe of {side}", [_code(recipe, f"recipe of {side}")]))
    return section


def _code(recipe: str, label: str) -> Code:
    return Code(short(recipe, _LONGEST_RECIPE), label)


def _provenance(material: Material) -> Section:
    section = Section("provenance", "How this was computed")
    comparison = material.comparison
    provenance: Mapping[str, Any]
    if comparison is None:
        provenance = material.runs[OWN][0].results.get("provenance") or {}
    else:
        section.blocks.append(Text(HOW))
        provenance = comparison["provenance"]
    rows: list[Sequence[object]] = [
        *([["mtl_nlp", provenance["mtl_nlp"]]] if provenance.get("mtl_nlp") else []),
        *([name, version] for name, version in (provenance.get("versions") or {}).items()),
        *([f"data of {name}", print_] for name, print_ in (provenance.get("data_fingerprints") or {}).items()),
    ]
    if rows:
        section.blocks.append(Table("Versions and fingerprints of the data", ["of", "value"], rows))
    return section
