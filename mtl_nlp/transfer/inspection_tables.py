"""The tables of an inspection for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_nlp.balancing.verdicts import cosine_text
from mtl_nlp.hub.comparison import unit_of
from mtl_nlp.messages import counted, table


def describe_inspection(content: Mapping[str, Any]) -> str:
    """Return a short table for each part of an inspection.

    Args:
        content: the content of `inspection.json`.
    """
    texts = ", ".join(f"{counted(count, 'text')} of {name}" for name, count in content["rows"].items())
    parts = [f"Inspected on {content['split']}: {texts}.", _movement(content)]
    builders: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
        ("need", _need),
        ("ablation", _ablation),
        ("adapters", _adapters),
    )
    parts += [build(content) for key, build in builders if content[key] is not None]
    parts += [f"left out: {reason}" for reason in content["left_out"]]
    return "\n\n".join(parts)


def change_text(metric: str, change: float) -> str:
    """Return a change of a score with its sign, in points for shares."""
    return unit_of(metric).change(change)


def heads_text(heads: Sequence[Sequence[int]]) -> str:
    """Return heads as `layer 1 head 8, layer 2 head 0`, of which at most six."""
    shown = [f"layer {layer} head {head}" for layer, head in heads[:6]]
    return ", ".join([*shown, *([f"{len(heads) - 6} more"] if len(heads) > 6 else [])]) or "none"


def describe_probes(units: Mapping[str, int], tasks: Mapping[str, str], split: str) -> str:
    """Return a sentence on the texts that probes learned from and were scored on.

    Args:
        units: task -> the number of words or texts that its probes learned from.
        tasks: task -> `words` or `texts`.
        split: the split on which the probes were scored.
    """
    learned = ", ".join(f"{count:,} {tasks[name]} for {name}" for name, count in units.items() if name in tasks)
    return f"The probes learned from the training split ({learned}) and were scored on {split}."


def describe_chance(tasks: Mapping[str, tuple[int, str]]) -> str:
    """Return a sentence on the smallest changes that are no more than chance.

    Args:
        tasks: task -> the number of its words or texts, and `words` or `texts`.
    """
    units = ", ".join(f"{count:,} {unit} for {name}" for name, (count, unit) in tasks.items())
    return f"Changes by a few answers are chance: the scores are from {units}."


def score_name(name: str, metric: str) -> str:
    """Return the name of a task's score with its unit, such as `pos accuracy (%)`."""
    return f"{name} {metric}{' (%)' if unit_of(metric).factor == 100 else ''}"


def change_name(name: str, metric: str) -> str:
    """Return the name of a change of a task's score with its unit, such as `pos accuracy (points)`."""
    return f"{name} {metric}{' (points)' if unit_of(metric).factor == 100 else ''}"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _movement(content: Mapping[str, Any]) -> str:
    groups = content["movement"]
    head = ["layer"]
    columns: list[Sequence[str]] = [content["layers"]]
    for group in groups:
        of = "" if len(groups) == 1 else f" ({', '.join(group['tasks'])})"
        if group["weights"] is not None:
            head.append(f"weights moved{of}")
            columns.append([_number(value) for value in group["weights"]])
        head.append(f"1 − CKA{of}")
        columns.append([_number(None if value is None else 1.0 - value) for value in group["cka"]])
    title = "Movement from the encoder at the start: ‖W − W₀‖ / ‖W₀‖, and 1 − CKA, the change of the hidden states"
    return f"{title}\n{table(head, list(zip(*columns, strict=True)))}"


def _need(content: Mapping[str, Any]) -> str:
    scores = content["need"]["scores"]
    metrics = {name: content["tasks"][name]["metric"] for name in scores}
    rows = [
        [layer, *(unit_of(metrics[name]).value(of_task[place]) for name, of_task in scores.items())]
        for place, layer in enumerate(content["layers"])
    ]
    rows.append(
        ["own head", *(unit_of(metric).value(content["tasks"][name]["score"]) for name, metric in metrics.items())]
    )
    head = ["score of a probe on", *(score_name(name, metric) for name, metric in metrics.items())]
    units = {name: content["tasks"][name]["unit"] for name in scores}
    return f"{describe_probes(content['need']['units'], units, content['split'])}\n{table(head, rows)}"


def _ablation(content: Mapping[str, Any]) -> str:
    found = content["ablation"]
    metrics = {name: content["tasks"][name]["metric"] for name in found["layers"]}
    rows = [
        [layer, *(change_text(metric, found["layers"][name][place]) for name, metric in metrics.items())]
        for place, layer in enumerate(content["layers"][1:])
    ]
    lines = [table(["change without", *(change_name(name, metric) for name, metric in metrics.items())], rows)]
    lines.append(
        describe_chance({name: (content["tasks"][name]["units"], content["tasks"][name]["unit"]) for name in metrics})
    )
    for name, changes in found["heads"].items():
        total = sum(map(len, changes))
        lines.append(
            f"{name}: {found['harmless'][name]} of {total} heads can be switched off, one at a time, without a lower "
            f"score; needed most by {name} alone: {heads_text(found['own'][name])}"
        )
    shared = [f"layer {each['layer']} head {each['head']} ({', '.join(each['tasks'])})" for each in found["shared"]]
    return "\n".join([*lines, f"needed most by several tasks: {', '.join(shared[:6]) or 'none'}"])


def _adapters(content: Mapping[str, Any]) -> str:
    found = content["adapters"]
    names = found["names"]
    rows = [
        [layer, *(_number(found["norms"][name][place]) for name in names)]
        for place, layer in enumerate(content["layers"])
    ]
    similar = [
        [name, *("" if value is None else cosine_text(value) for value in of_row)]
        for name, of_row in zip(names, found["similarity"], strict=True)
    ]
    return f"{table(['norm of ΔW', *names], rows)}\n\n{table(['cosine of ΔW', *names], similar)}"
