"""The files on what tasks share: `inspection.json` of a model, and `conflict.json` of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_nlp.errors import DataError
from mtl_nlp.messages import one_line

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)] | None
"""A finite number, or None if it is not defined."""
Matrix = list[list[Number]]
_Lists = list[tuple[str, Sequence[Any], int]]
"""Lists of a file with their place and the number of entries that they should have."""


class _Part(BaseModel):
    """A part of a file; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class InspectedTask(_Part):
    """A task of an inspection."""

    metric: str
    score: Number
    units: int
    unit: str


class Movement(_Part):
    """The movement of the encoder as some tasks read it."""

    tasks: list[str]
    weights: list[Number] | None
    cka: list[Number]


class Need(_Part):
    """The scores of probes, and the number of units that they learned from."""

    scores: dict[str, list[Number]]
    units: dict[str, int]


class SharedHead(_Part):
    """An attention head that several tasks need most."""

    layer: int
    head: int
    tasks: list[str]


class Ablation(_Part):
    """The changes of scores without heads and layers."""

    heads: dict[str, Matrix]
    layers: dict[str, list[Number]]
    correlation: Matrix
    shared: list[SharedHead]
    own: dict[str, list[tuple[int, int]]]
    harmless: dict[str, int]


class Adapters(_Part):
    """The norms and the similarity of the adapters' ΔW."""

    names: list[str]
    norms: dict[str, list[Number]]
    similarity: Matrix
    similarity_by_layer: list[Matrix]


class InspectionOrigin(_Part):
    """The origin of an inspection."""

    weights_sha256: str | None = None


class Inspection(_Part):
    """The content of `inspection.json`, see `mtl_nlp.transfer.inspection`."""

    split: str
    rows: dict[str, int]
    tasks: dict[str, InspectedTask]
    layers: list[str]
    movement: list[Movement]
    need: Need | None
    ablation: Ablation | None
    adapters: Adapters | None
    left_out: list[str]
    provenance: InspectionOrigin

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        count, below = len(self.layers), len(self.layers) - 1
        lists: _Lists = []
        for group in self.movement:
            lists += [("movement", each, count) for each in (group.weights, group.cka) if each is not None]
        if self.need is not None:
            _check_names("need", self.need.scores, self.tasks)
            lists += [("need", of_task, count) for of_task in self.need.scores.values()]
        if self.ablation is not None:
            _check_names("ablation", {**self.ablation.heads, **self.ablation.layers}, self.tasks)
            for known in (self.ablation.harmless, self.ablation.layers):
                _check_names("ablation", self.ablation.heads, known)
            heads = [changes for of_task in self.ablation.heads.values() for changes in of_task]
            lists += [("ablation.heads", changes, len(heads[0])) for changes in heads]
            lists += [("ablation.heads", of_task, below) for of_task in self.ablation.heads.values()]
            lists += [("ablation.layers", of_task, below) for of_task in self.ablation.layers.values()]
            lists += _square("ablation.correlation", self.ablation.correlation, len(self.ablation.heads))
        if self.adapters is not None:
            names = self.adapters.names
            _check_names("adapters", names, self.adapters.norms)
            lists += [("adapters", of_name, count) for of_name in self.adapters.norms.values()]
            lists += [("adapters", self.adapters.similarity_by_layer, count)]
            for matrix in (self.adapters.similarity, *self.adapters.similarity_by_layer):
                lists += _square("adapters", matrix, len(names))
        _check_lengths(lists)
        return self


class Measurement(_Part):
    """The conflict of the tasks' gradients at one step."""

    step: int
    cosine: Matrix


class MeanConflict(_Part):
    """The conflict as a mean over the training."""

    cosine: Matrix
    cosine_by_layer: list[Matrix]
    conflicting: Matrix


class Conflict(_Part):
    """The content of `conflict.json`: cosines of the tasks' gradients of the encoder, overall and by layer."""

    every: int
    tasks: list[str]
    layers: list[str]
    measurements: list[Measurement]
    mean: MeanConflict

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        size = len(self.tasks)
        lists: _Lists = [("mean.cosine_by_layer", self.mean.cosine_by_layer, len(self.layers))]
        for matrix in (self.mean.cosine, self.mean.conflicting, *self.mean.cosine_by_layer):
            lists += _square("mean", matrix, size)
        for each in self.measurements:
            lists += _square("measurements", each.cosine, size)
        _check_lengths(lists)
        return self


def _square(where: str, matrix: Sequence[Sequence[Any]], size: int) -> Iterator[tuple[str, Sequence[Any], int]]:
    yield where, matrix, size
    for row in matrix:
        yield where, row, size


def _check_lengths(lists: _Lists) -> None:
    for where, found, size in lists:
        if len(found) != size:
            raise ValueError(f"{where} should have lists of {size} entries. Found {len(found)}")


def _check_names(where: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} has the unknown name {name!r:.80}")


_File = TypeVar("_File", Inspection, Conflict)


def read_inspection(path: Path) -> Inspection | None:
    """Read `inspection.json`, or return None if there is no such file.

    Raises:
        DataError: if the file is damaged.
    """
    return _read(path, Inspection, "mtl-nlp inspect")


def read_conflict(path: Path) -> Conflict | None:
    """Read `conflict.json`, or return None if there is no such file.

    Raises:
        DataError: if the file is damaged.
    """
    return _read(path, Conflict, "mtl-nlp train")


def _read(path: Path, form: type[_File], command: str) -> _File | None:
    if not path.is_file():
        return None
    try:
        return form.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        raise DataError(f"{path} is damaged ({problem:.200}). Write it again: {command}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}.") from error
