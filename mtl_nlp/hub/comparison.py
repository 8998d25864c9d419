"""The file of a comparison, `comparison.json`: its form, and the numbers that the report, card and tables show."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_nlp.errors import DataError
from mtl_nlp.messages import one_line
from mtl_nlp.run_folder import COMPARISON_NAME

_SHARES = frozenset(
    {"accuracy", "balanced_accuracy", "exact_match", "f1", "precision", "recall", "frame_accuracy"}
    | {f"{average}_{name}" for average in ("macro", "micro", "weighted") for name in ("f1", "precision", "recall")}
)
"""The metrics with values from 0 to 1, which are shown in percent. Their differences are in points."""

MINUS = "−"

SINGLE = "single"
"""The side of a comparison in which each task is trained alone."""

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_PerSeed = list[_Number | None]


class _Part(BaseModel):
    """An object of the file. Further keys are allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Run(_Part):
    folder: str
    tasks: list[str]


class _Side(_Part):
    title: str
    runs: dict[str, list[_Run]] = Field(default_factory=dict)
    cost: dict[str, _Number | None] | None = None
    predictions: str | None = None


class _Difference(_Part):
    delta: _Number | None = None
    low: _Number | None = None
    high: _Number | None = None
    p_holm: _Number | None = None
    smallest: _Number | None = None
    word: str | None = None


class _Task(_Part):
    metric: str
    values: dict[str, _PerSeed]
    scores: dict[str, dict[str, _PerSeed]] = Field(default_factory=dict)
    differences: dict[str, _Difference | None] = Field(default_factory=dict)
    learning_curve: dict[str, dict[Annotated[str, Field(pattern=r"^\d{1,3}$")], _PerSeed]] | None = None


class _DeltaM(_Part):
    value: _Number | None = None
    low: _Number | None = None
    high: _Number | None = None


class _Provenance(_Part):
    versions: dict[str, str] = Field(default_factory=dict)
    data_fingerprints: dict[str, str] = Field(default_factory=dict)
    recipes: dict[str, str] = Field(default_factory=dict)


class _Comparison(_Part):
    split: str
    seeds: list[int]
    reference: str
    match: str | None = None
    sides: dict[str, _Side]
    tasks: dict[str, _Task] = Field(min_length=1)
    delta_m: dict[str, _DeltaM | None] = Field(default_factory=dict)
    differs: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    provenance: _Provenance = Field(default_factory=_Provenance)

    @model_validator(mode="after")
    def _sides_exist(self) -> _Comparison:
        for name in {self.reference, *(side for task in self.tasks.values() for side in task.values)}:
            if name not in self.sides:
                raise ValueError(f"`sides` has no {name!r:.80}")
        return self


def read_comparison(path: Path) -> dict[str, Any]:
    """Read `comparison.json`.

    Raises:
        DataError: if the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _Comparison.model_validate(content).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        raise DataError(f"{path} is damaged ({reason:.300}). Write it again: mtl-nlp compare.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}). Write it again: mtl-nlp compare.") from error


def comparison_of(folder: Path) -> Path | None:
    """Return the `comparison.json` that belongs to a model's folder, or None if there is none.

    The file lies in the folder itself, or two levels above it, since `mtl-nlp compare` writes the runs of a comparison
    to `COMPARISON/runs/RUN`. A file above belongs to the run only if the file lists the run. It may also be a file of
    the user with the same name, which must not end a training.

    Raises:
        DataError: if the file above has sides and is damaged.
    """
    if (folder / COMPARISON_NAME).is_file():
        return folder / COMPARISON_NAME
    above = folder.resolve().parent
    path = above.parent / COMPARISON_NAME
    if above.name != "runs" or not _has_sides(path):
        return None
    sides = read_comparison(path)["sides"].values()
    return path if any(has_run(side, path.parent, folder) for side in sides) else None


def _has_sides(path: Path) -> bool:
    """Return whether a file is JSON with the key `sides`, as that of a comparison is."""
    if not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "sides" in content


def has_run(side: Mapping[str, Any], above: Path, folder: Path) -> bool:
    """Return whether a folder is that of a run of a side.

    Args:
        side: an entry of `sides` in `comparison.json`.
        above: the folder of the comparison.
        folder: the folder of the run.
    """
    runs = (run for of_seed in side["runs"].values() for run in of_seed)
    return any((above / run["folder"]).resolve() == folder.resolve() for run in runs)


class Unit(NamedTuple):
    """The unit in which the values of a metric are shown.

    Attributes:
        factor: the shown value of a score of 1.
        digits: the number of decimals.
        name: the unit of a difference: `points`, `percent`, or the metric itself.
    """

    factor: float
    digits: int
    name: str

    def value(self, value: float | None) -> str:
        """Return a score as text."""
        return "not defined" if value is None else f"{value * self.factor:.{self.digits}f}".replace("-", MINUS)

    def change(self, value: float | None) -> str:
        """Return a difference as text, with its sign."""
        if value is None:
            return "not defined"
        text = f"{value * self.factor:+.{self.digits}f}"
        return text.lstrip("+-") if not float(text) else text.replace("-", MINUS)

    def interval(self, difference: Mapping[str, Any] | None) -> str:
        """Return the ends of an interval as text; empty if there is no interval."""
        if difference is None or difference["low"] is None or difference["high"] is None:
            return ""
        return f"{self.change(difference['low'])} to {self.change(difference['high'])}"


PERCENT = Unit(1, 2, "percent")
"""The unit of Δm, whose values are already in percent."""


def unit_of(metric: str) -> Unit:
    """Return the unit of a metric: points for shares such as F1, and the plain number for all other metrics."""
    if metric in _SHARES:
        return Unit(100, 2, "points")
    return Unit(1, 4, metric)


class Spread(NamedTuple):
    """The values of a side over its seeds.

    Attributes:
        mean: their mean; None if a value is missing or not defined, since a mean over the rest would flatter.
        sd: their standard deviation (n - 1); None with one seed.
    """

    mean: float | None
    sd: float | None

    def text(self, unit: Unit) -> str:
        """Return the mean and, with several seeds, the standard deviation."""
        spread = "" if self.sd is None else f" ± {unit.value(self.sd)}"
        return f"{unit.value(self.mean)}{spread}"


def spread_of(values: Sequence[float | None] | None) -> Spread:
    """Return the mean and standard deviation of a side's values."""
    known = [value for value in values or () if value is not None]
    if not values or len(known) < len(values):
        return Spread(None, None)
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def joint_sides(comparison: Mapping[str, Any]) -> list[str]:
    """Return the sides that are compared with the reference."""
    return [side for side in comparison["sides"] if side != comparison["reference"]]


def difference_of(comparison: Mapping[str, Any], task: str, side: str) -> dict[str, Any] | None:
    """Return the difference between a side and the reference for a task, or None if the file has none."""
    differences = comparison["tasks"][task].get("differences", {})
    return differences.get(f"{side} - {comparison['reference']}")


def cost_of(comparison: Mapping[str, Any], side: str, key: str) -> float | None:
    """Return a cost of a side, or None if it is unknown."""
    return (comparison["sides"][side].get("cost") or {}).get(key)


def cost_ratio(comparison: Mapping[str, Any], side: str, key: str) -> float | None:
    """Return a side's cost divided by the reference's cost, or None if either is unknown or zero."""
    own, other = (cost_of(comparison, name, key) for name in (side, comparison["reference"]))
    return own / other if own and other and math.isfinite(own / other) else None


COSTS = {
    "models": "models",
    "parameters": "parameters",
    "bytes": "MB on disk",
    "training_passes": "encoder passes in training",
    "training_seconds": "seconds of training",
    "answering_passes": "encoder passes per text",
    "ms_per_1000_texts": "ms per 1,000 texts",
}
"""The costs of a side, and their names in tables."""


def cost_text(key: str, value: float | None) -> str:
    """Return a cost as text."""
    if value is None:
        return "unknown"
    shown = value / 1e6 if key == "bytes" else value
    return f"{shown:,.1f}" if key in {"bytes", "training_seconds", "ms_per_1000_texts"} else count_text(shown)


def count_text(value: float) -> str:
    """Return a count, or a mean of counts, as text without an exponent."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


def comparison_rows(
    comparison: Mapping[str, Any], sides: Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return the table of a comparison: a row for each task and each side that is compared with the reference.

    Args:
        comparison: the content of `comparison.json`.
        sides: the sides to show; by default all that are compared with the reference.

    Returns:
        The head, and the rows as texts. The last rows have Δm in percent.
    """
    reference = comparison["reference"]
    sides = joint_sides(comparison) if sides is None else sides
    head = ["task", "score", "side", "mean ± sd", reference, "Δ", "95 % interval", "in words"]
    rows = []
    for name, task in comparison["tasks"].items():
        unit = unit_of(task["metric"])
        for side in sides:
            own, other = (spread_of(task["values"].get(each)).text(unit) for each in (side, reference))
            found = difference_of(comparison, name, side) or {"delta": None, "low": None, "high": None, "word": None}
            change = unit.change(found["delta"])
            rows.append([name, task["metric"], side, own, other, change, unit.interval(found), found["word"] or ""])
    for side in sides:
        if (mean := (comparison.get("delta_m") or {}).get(side)) is not None:
            rows.append(["all", "Δm, %", side, "", "", PERCENT.change(mean["value"]), PERCENT.interval(mean), ""])
    return head, rows


def cost_rows(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table of costs: a row for each cost that is known for a side, and a column for each side."""
    sides = list(comparison["sides"])
    rows = []
    for key, name in COSTS.items():
        values = [cost_of(comparison, side, key) for side in sides]
        if any(value is not None for value in values):
            rows.append([name, *(cost_text(key, value) for value in values)])
    return ["cost", *sides], rows
