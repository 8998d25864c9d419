"""The comparison of sides: scores, differences with intervals, and costs; `comparison.json`."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.errors import CommandError
from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.hub.comparison import spread_of
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.run_folder import COMPARISON_NAME, PREDICTIONS_NAME, shared_recipe, write_file
from mtl_nlp.transfer.content import versions
from mtl_nlp.transfer.delta_m import delta_m
from mtl_nlp.transfer.measured import Measured, tasks_of
from mtl_nlp.transfer.sides import SINGLE
from mtl_nlp.transfer.speed import milliseconds_per_1000_texts
from mtl_nlp.transfer.statistics import adjust, compare_sides

if TYPE_CHECKING:
    import pandas as pd

_TIMED_TEXTS = 200
"""The number of texts on which answering is timed."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        folder: the folder of the comparison.
        content: the content of `comparison.json`.
    """

    folder: Path
    content: dict[str, Any]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per task and pair of sides: mean and standard deviation of both sides, and the difference."""
        import pandas as pd

        rows = []
        for task, entry in self.content["tasks"].items():
            for pair, difference in entry["differences"].items():
                side, _, reference = pair.partition(" - ")
                numbers = {
                    f"{role}_{name}": value
                    for role, each in (("side", side), ("reference", reference))
                    for name, value in zip(("mean", "sd"), spread_of(entry["values"][each]), strict=True)
                }
                shown = {key: value for key, value in difference.items() if key != "variance"}
                names = {"task": task, "metric": entry["metric"], "side": side, "reference": reference}
                rows.append({**names, **numbers, **shown})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False)


def compare_measured(
    sides: Sequence[Measured],
    output: Path,
    *,
    plan: Mapping[str, Any],
    curves: Mapping[float, Sequence[Measured]],
    report: Callable[[str], None],
) -> Comparison:
    """Compare measured sides, time their answers, and write `comparison.json`.

    Args:
        sides: the sides. The reference is the side with a model per task, or else the first.
        output: the folder of the comparison.
        plan: further entries of `comparison.json`: `match`, `differs`, `warnings`, `notes`.
        curves: share of the training rows -> the sides trained on it.
        report: a function that shows a line to the user.

    Raises:
        CommandError: if the sides do not have the same tasks or split.
        DataError: if the sides' texts or gold labels differ.
    """
    every = tasks_of(sides)
    tasks = {name: task for name, task in every.items() if all(name in side.tasks for side in sides)}
    _check_sides(sides, tasks)
    left_out = [
        f"{name} is left out, since not every side has predictions for it" for name in every if name not in tasks
    ]
    for note in left_out:
        report(f"note: {note}")
    reference = next((side for side in sides if side.name == SINGLE), sides[0])
    others = [side for side in sides if side is not reference]
    differences = {}
    for side in others:
        report(f"comparing {side.name} with {reference.name}")
        found = {name: compare_sides(_runs(side, name), _runs(reference, name), task) for name, task in tasks.items()}
        differences[f"{side.name} - {reference.name}"] = adjust(found)
    relative = {
        side.name: delta_m(
            {name: _runs(side, name) for name in tasks}, {name: _runs(reference, name) for name in tasks}, tasks
        )
        for side in others
    }
    reasons = {
        f"{name}, {pair}: {difference.reason}"
        for pair, found in differences.items()
        for name, difference in found.items()
        if difference.reason
    } | {f"Δm of {name}: {value.reason}" for name, value in relative.items() if value.reason}
    content = {
        "split": reference.split,
        "seeds": _seeds_of(sides),
        "reference": reference.name,
        **plan,
        "sides": _sides_entry(sides, output, report),
        "tasks": {
            name: _task_entry(task, sides, curves)
            | {"differences": {pair: found[name].to_dict() for pair, found in differences.items()}}
            for name, task in tasks.items()
        },
        "delta_m": {name: value.to_dict() for name, value in relative.items()},
        "notes": [*plan["notes"], *left_out, *sorted(reasons)],
        "provenance": _provenance(sides),
    }
    write_file(output / COMPARISON_NAME, json_text(content, indent=2) + "\n")
    return Comparison(output, content)


def _check_sides(sides: Sequence[Measured], tasks: Mapping[str, Task]) -> None:
    if len(sides) < 2:
        raise CommandError("compare: a comparison needs two sides. Name a second run, recipe or file of predictions.")
    for side in sides:
        if not tasks:
            listed = "; ".join(f"{each.name}: {', '.join(each.tasks)}" for each in sides)
            raise CommandError(f"compare: the sides should have a task in common. Found {listed}.")
        if side.split != sides[0].split:
            raise CommandError(
                f"compare: every side should be scored on the same split. {sides[0].name} was scored on "
                f"{sides[0].split}, {side.name} on {side.split}."
            )


def _runs(side: Measured, task: str) -> list[list[Prediction]]:
    return [by_task[task] for by_task in side.predictions.values()]


def _seeds_of(sides: Iterable[Measured]) -> list[int]:
    """Return the seeds of the side with the most runs."""
    longest = max(sides, key=lambda side: len(side.predictions))
    return [int(run) for run in longest.predictions]


def _sides_entry(sides: Sequence[Measured], output: Path, report: Callable[[str], None]) -> dict[str, Any]:
    models = {side.name: next(iter(side.models.values())) for side in sides if side.models}
    texts = _texts(sides[0])
    report(f"timing the answers to {len(texts)} texts")
    timed = milliseconds_per_1000_texts(
        {name: [each.folder for each in found] for name, found in models.items()}, texts
    )
    return {
        side.name: {
            "title": side.title,
            "runs": {
                run: [
                    {"folder": os.path.relpath(model.folder, output), "key": model.key, "tasks": list(model.tasks)}
                    for model in found
                ]
                for run, found in side.models.items()
            },
            "cost": side.cost(timed.get(side.name)),
            **({} if side.file is None else {"predictions": _copied(side.file, output)}),
        }
        for side in sides
    }


def _copied(file: Path, output: Path) -> str:
    """Copy a file of predictions into the folder of the comparison, from which the report is made."""
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    folder = output / "predictions" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PREDICTIONS_NAME).is_file():
        shutil.copyfile(file, folder / PREDICTIONS_NAME)
    return folder.relative_to(output).as_posix()


def _texts(side: Measured) -> list[dict[str, Any]]:
    """Return distinct texts of all tasks as inputs of the pipeline, evenly spaced."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for predictions in next(iter(side.predictions.values())).values():
        for each in predictions:
            words = (
                {"tokens": each.tokens} if each.tokens is not None else {"text": each.text, "text_pair": each.text_pair}
            )
            found[each.dataset, each.row] = {key: value for key, value in words.items() if value is not None}
    every = [text for text in found.values() if any(text.values())] or list(found.values())
    step = max(1, len(every) // _TIMED_TEXTS)
    return every[::step][:_TIMED_TEXTS]


def _task_entry(task: Task, sides: Sequence[Measured], curves: Mapping[float, Sequence[Measured]]) -> dict[str, Any]:
    primary = task.kind.primary_score
    scores = {side.name: _values(side, task.name) for side in sides}
    entry: dict[str, Any] = {
        "type": task.type,
        "metric": primary,
        "texts": len(_runs(sides[0], task.name)[0]),
        "values": {name: found[primary] for name, found in scores.items()},
        "scores": scores,
    }
    if curves:
        every = {**curves, 1.0: sides}
        entry["learning_curve"] = {
            side.name: {
                f"{share:.0%}".removesuffix("%"): _values(at, task.name)[primary]
                for share, found in sorted(every.items())
                for at in found
                if at.name == side.name
            }
            for side in sides
        }
    return entry


def _values(side: Measured, task: str) -> dict[str, list[float | None]]:
    """Return the values of each score over the runs of a side."""
    first = next(iter(side.scores.values()))
    return {name: [run[task].get(name) for run in side.scores.values()] for name in first[task]}


def _provenance(sides: Sequence[Measured]) -> dict[str, Any]:
    models = [model for side in sides for model in next(iter(side.models.values()), [])]
    fingerprints: dict[str, str] = {}
    for model in models:
        fingerprints |= model.results.get("provenance", {}).get("data_fingerprints", {})
    recipes = {
        side.name: recipe.to_yaml()
        for side in sides
        for model in next(iter(side.models.values()), [])[:1]
        if (recipe := shared_recipe(model.folder)) is not None
    }
    return {"versions": versions(), "data_fingerprints": fingerprints, "recipes": recipes}
