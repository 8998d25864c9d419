"""Sentences that say whether sharing helped, made from `comparison.json`. The report and the model card show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mtl_nlp.hub.comparison import (
    PERCENT,
    Unit,
    cost_of,
    cost_ratio,
    difference_of,
    joint_sides,
    unit_of,
)

HURT, HELPED, UNCLEAR = "hurt", "helped", "no clear difference"

_ORDER = {HURT: 0, None: 1, HELPED: 2, UNCLEAR: 3}
"""Losses come first, so that the page never flatters; then tasks without a word, since their scores may be missing."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PARTS = {2: "half", 3: "a third of", 4: "a quarter of"}


_NAMED = 3
"""The number of tasks up to which a sentence names them."""


class Statement(NamedTuple):
    """A sentence about one task.

    Attributes:
        side: the side that is compared with the reference.
        task: the task.
        word: `helped`, `hurt` or `no clear difference`; None if nothing can be said.
        text: the sentence.
    """

    side: str
    task: str
    word: str | None
    text: str


def task_statements(comparison: Mapping[str, Any], side: str) -> list[Statement]:
    """Return a sentence for each task: first the tasks that sharing hurt, then the others.

    Args:
        comparison: the content of `comparison.json`.
        side: the side that is compared with the reference.
    """
    found = [_statement(comparison, task, side) for task in comparison["tasks"]]
    return sorted(found, key=lambda statement: _ORDER[statement.word])


def _statement(comparison: Mapping[str, Any], task: str, side: str) -> Statement:
    content = comparison["tasks"][task]
    unit = unit_of(content["metric"])
    difference = difference_of(comparison, task, side)
    if difference is None or difference["delta"] is None:
        text = f"{task}: {content['metric']} is not defined in at least one run, so the sides cannot be compared."
        return Statement(side, task, None, text)
    word = difference["word"] if difference["word"] in _ORDER else None
    by = "sharing" if comparison["reference"] == "single" else f"the change from {comparison['reference']}"
    if word in {HURT, HELPED}:
        verb, means = ("gained", "from") if difference["delta"] > 0 else ("lost", "through")
        text = f"{task} {verb} {_amount(unit, difference)} {means} {by}."
    elif word == UNCLEAR:
        text = (
            f"{task} shows no clear difference: {_change(unit, difference)}{_detectable(unit, difference, comparison)}."
        )
    else:
        text = f"{task} changed by {_change(unit, difference)}; {_why_no_word(comparison, side)}."
    return Statement(side, task, word, text)


def _why_no_word(comparison: Mapping[str, Any], side: str) -> str:
    if fewest_runs(comparison, side) < 2:
        return "one seed cannot separate this from chance"
    return "the comparison gives no word"


def fewest_runs(comparison: Mapping[str, Any], side: str) -> int:
    """Return the smaller number of seeds of a side and of the reference."""
    names = (side, comparison["reference"])
    return min(len(task["values"].get(name) or ()) for task in comparison["tasks"].values() for name in names)


def _short(unit: Unit) -> Unit:
    """Return the unit with one decimal for points, since a sentence is read and not computed with."""
    return unit._replace(digits=1) if unit.factor == 100 else unit._replace(digits=3)


def _amount(unit: Unit, difference: Mapping[str, Any]) -> str:
    """Return the size of a gain or loss with its interval, such as `1.7 points (0.6 to 2.9)`."""
    short = _short(unit)
    sign = 1 if difference["delta"] > 0 else -1
    ends = [sign * difference[end] for end in ("low", "high") if difference[end] is not None]
    interval = f" ({' to '.join(short.value(end) for end in sorted(ends))})" if len(ends) == 2 else ""
    return f"{short.value(abs(difference['delta']))} {unit.name}{interval}"


def _change(unit: Unit, difference: Mapping[str, Any]) -> str:
    short = _short(unit)
    interval = short.interval(difference)
    return f"{short.change(difference['delta'])} {unit.name}{f' ({interval})' if interval else ''}"


def _detectable(unit: Unit, difference: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    if difference["smallest"] is None:
        return ""
    seeds = len(comparison["seeds"])
    smallest = _short(unit).value(difference["smallest"])
    return f", and {_count(seeds, 'seed')} can show only differences of about {smallest} or more"


def whole_statement(comparison: Mapping[str, Any], side: str) -> str:
    """Return the sentence on all tasks and the cost of a side.

    Args:
        comparison: the content of `comparison.json`.
        side: the side that is compared with the reference.
    """
    parts = [_counts(comparison, side), *_delta_m(comparison, side), *_cost(comparison, side)]
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."


def _counts(comparison: Mapping[str, Any], side: str) -> str:
    found: dict[str | None, list[str]] = {word: [] for word in _ORDER}
    for statement in task_statements(comparison, side):
        found[statement.word].append(statement.task)
    verbs = {HURT: "hurt", HELPED: "helped", UNCLEAR: "made no clear difference to", None: "has no verdict for"}
    who = "sharing" if comparison["reference"] == "single" else side
    total = len(comparison["tasks"])
    parts = []
    for word, tasks in found.items():
        if len(tasks) == total > 1:
            every = "both tasks" if total == 2 else f"all {_number(total)} tasks"
            either = "either task" if total == 2 else f"any of the {_number(total)} tasks"
            return f"{who} {verbs[word]} {either if word is None else every}"
        if tasks:
            parts.append(f"{verbs[word]} {_named(tasks)}")
    return f"{who} {' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))}"


def _named(tasks: list[str]) -> str:
    """Return up to three names, or the number of tasks."""
    if len(tasks) > _NAMED:
        return _count(len(tasks), "task")
    return tasks[0] if len(tasks) == 1 else f"{', '.join(tasks[:-1])} and {tasks[-1]}"


def _delta_m(comparison: Mapping[str, Any], side: str) -> Iterable[str]:
    mean = (comparison.get("delta_m") or {}).get(side)
    if mean is not None and mean["value"] is None:
        yield "Δm is not defined"
    elif mean is not None:
        short = PERCENT._replace(digits=1)
        interval = short.interval(mean)
        yield f"Δm is {short.change(mean['value'])} %{f' ({interval})' if interval else ''}"


def _cost(comparison: Mapping[str, Any], side: str) -> Iterable[str]:
    """Return how the models of both sides differ in number, size and speed, as far as these are known."""
    own, other = (cost_of(comparison, name, "models") for name in (side, comparison["reference"]))
    parts = []
    if (size := cost_ratio(comparison, side, "bytes") or cost_ratio(comparison, side, "parameters")) is not None:
        parts.append(_size(size))
    if (time := cost_ratio(comparison, side, "ms_per_1000_texts")) is not None:
        parts.append(f"{1 / time:.1f} × the speed")
    if own and other and own != other:
        yield f"{_number(int(own))} {'encoder' if own == 1 else 'encoders'} instead of {_number(int(other))}" + (
            f": {', '.join(parts)}" if parts else ""
        )
    elif parts:
        yield ", ".join(parts)


def _size(ratio: float) -> str:
    part = next((word for part, word in _PARTS.items() if abs(ratio * part - 1) < 0.04), None)
    return f"{part} the size" if part is not None else f"{ratio:.2f} × the size"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _count(count: int, noun: str) -> str:
    return f"{_number(count)} {noun}{'' if count == 1 else 's'}"


def caveats(comparison: Mapping[str, Any]) -> list[str]:
    """Return the sentences that limit the meaning of a comparison: its own warnings, and those that follow from it."""
    found = [_sentence(warning) for warning in comparison.get("warnings") or ()]
    sides = joint_sides(comparison)
    if len(sides) > 1:
        shown = "Both" if len(sides) == 2 else f"All {_number(len(sides))}"
        found.append(
            f"{shown} ways to share are shown. To pick the better one by these {comparison['split']} scores flatters "
            f"it: pick on validation, or score the pick on new texts."
        )
    if comparison["split"] == "validation":
        found.append(
            "The scores are on validation, on which settings and checkpoints are often chosen. Such scores flatter all "
            "sides, and not all by the same amount."
        )
    if len(comparison["seeds"]) < 2:
        found.append(
            "One seed gives numbers and no verdict: the scores of two seeds may differ by more than the sides."
        )
    return found


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
