"""Conflict: the cosines between the tasks' gradients on the encoder, overall and by layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from torch import nn

from mtl_nlp.balancing.gradients import shared_parameters
from mtl_nlp.modeling.layers_multitask import layers_or_groups
from mtl_nlp.modeling.modeling_multitask import MultitaskModel

EMBEDDINGS, REST = "embeddings", "rest"
"""The names of the blocks of parameters that are not layers."""

_DIGITS = 6


class Blocks(NamedTuple):
    """The encoder's shared trained parameters without the word embeddings, in blocks.

    Word embeddings are left out: they can be half of an encoder, and their gradients are mostly zero.

    Attributes:
        names: `embeddings` for the remaining parameters of the embeddings, `layer 0`, …, and `rest`; only blocks with
            parameters.
        slices: the block and the parameter's place among all shared parameters, for each parameter: (block, start,
            stop).
        parameters: the parameters, in the order of `slices`.
    """

    names: list[str]
    slices: list[tuple[int, int, int]]
    parameters: list[nn.Parameter]

    @property
    def own_slices(self) -> list[tuple[int, int, int]]:
        """The slices of a vector that has only these parameters."""
        stops = itertools.accumulate(stop - start for _, start, stop in self.slices)
        return [(block, end - stop + start, end) for (block, start, stop), end in zip(self.slices, stops, strict=True)]


def blocks_of(model: MultitaskModel) -> Blocks:
    """Return the blocks of a model's encoder; see `layers_or_groups` for encoders that share or group their layers."""
    embeddings = model.encoder.get_input_embeddings().weight
    names = {parameter: name for name, parameter in model.encoder.named_parameters()}
    shared = shared_parameters(model)
    layers = layers_or_groups(model.encoder)
    numbers = {parameter: number for number, layer in enumerate(layers) for parameter in layer.parameters()}
    top = names[embeddings].partition(".")[0]
    found: list[tuple[str, nn.Parameter, int]] = []
    stops = itertools.accumulate(parameter.numel() for parameter in shared)
    for parameter, stop in zip(shared, stops, strict=True):
        if parameter in numbers:
            block = f"layer {numbers[parameter]}"
        else:
            block = EMBEDDINGS if names[parameter].startswith(f"{top}.") else REST
        if parameter is not embeddings:
            found.append((block, parameter, stop))
    ordered = sorted({block for block, *_ in found}, key=_position)
    slices = [(ordered.index(block), stop - parameter.numel(), stop) for block, parameter, stop in found]
    return Blocks(ordered, slices, [parameter for _, parameter, _ in found])


def _position(block: str) -> float:
    return {EMBEDDINGS: -1.0, REST: math.inf}.get(block) or float(block.removeprefix("layer "))


def block_gramians(gradients: torch.Tensor, slices: Sequence[tuple[int, int, int]], count: int) -> torch.Tensor:
    """Return the inner products of gradients in each block.

    Args:
        gradients: one gradient per task, shape (tasks, parameters).
        slices: (block, start, stop) of parameters in a gradient.
        count: the number of blocks.

    Returns:
        Shape (blocks, tasks, tasks).
    """
    gramians = gradients.new_zeros(count, len(gradients), len(gradients))
    for block, start, stop in _joined(slices):
        part = gradients[:, start:stop]
        gramians[block] += part @ part.T
    return gramians


def _joined(slices: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield slices, with neighbours in the same block as one."""
    pending: tuple[int, int, int] | None = None
    for block, start, stop in slices:
        if pending is not None and pending[0] == block and pending[2] == start:
            pending = (block, pending[1], stop)
            continue
        if pending is not None:
            yield pending
        pending = (block, start, stop)
    if pending is not None:
        yield pending


_Matrix = list[list[float | None]]


class _Measurement(BaseModel):
    """A measurement in `conflict.json`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: Annotated[int, Field(ge=0)]
    rows: dict[str, int]
    norms: dict[str, float | None]
    norms_by_layer: dict[str, list[float | None]]
    cosine: _Matrix
    cosine_by_layer: list[_Matrix]

    @model_validator(mode="after")
    def _has_the_shape_of_the_model(self, info: ValidationInfo) -> _Measurement:
        tasks, layers = info.context or ([], [])
        matrices = [self.cosine, *self.cosine_by_layer]
        if any(len(each) != len(tasks) or any(len(row) != len(tasks) for row in each) for each in matrices):
            raise ValueError("a matrix of cosines should have a row and a column for each task")
        by_layer: list[Sequence[Any]] = [self.cosine_by_layer, *self.norms_by_layer.values()]
        if any(len(each) != len(layers) for each in by_layer):
            raise ValueError("there should be a value for each layer")
        if any(list(each) != tasks for each in (self.rows, self.norms, self.norms_by_layer)):
            raise ValueError("there should be a value for each task")
        return self


class Conflict:
    """The measurements of the conflict in a training, the content of `conflict.json`.

    Args:
        tasks: the names of all tasks.
        layers: the names of the blocks, see `Blocks`.
        every: the number of optimizer steps from one measurement to the next.
    """

    def __init__(self, tasks: Sequence[str], layers: Sequence[str], every: int) -> None:
        self.tasks, self.layers, self.every = list(tasks), list(layers), every
        self.reset()

    def reset(self) -> None:
        """Forget all measurements."""
        self.measurements: list[dict[str, Any]] = []
        self._logged = 0

    def add(self, step: int, rows: Mapping[str, int], gramians: torch.Tensor) -> None:
        """Add a measurement.

        Args:
            step: the number of the optimizer step, from 1.
            rows: the measured rows with a label for each task.
            gramians: the inner products of the gradients in each block, shape (blocks, tasks, tasks). A task without
                rows has a gradient of zero, whose cosines and norms are null.
        """
        products = gramians.double().cpu().numpy()
        norms, by_layer = _norms(products.sum(axis=0)), _norms(products)
        self.measurements.append(
            {
                "step": step,
                "rows": {task: int(rows[task]) for task in self.tasks},
                "norms": dict(zip(self.tasks, _plain(norms), strict=True)),
                "norms_by_layer": dict(zip(self.tasks, _plain(by_layer.T), strict=True)),
                "cosine": _plain(_cosines(products.sum(axis=0))),
                "cosine_by_layer": _plain(_cosines(products)),
            }
        )

    def content(self) -> dict[str, Any]:
        """Return the content of `conflict.json`: the measurements, and their means where they are defined.

        `conflicting` is the share of the measurements of two tasks in which their cosine was negative.
        """
        found = self.measurements
        count, layers = len(self.tasks), len(self.layers)
        none = np.full((count, count), np.nan)
        norms = {task: _mean([each["norms"][task] for each in found], np.array(np.nan)) for task in self.tasks}
        return {
            "every": self.every,
            "tasks": self.tasks,
            "layers": self.layers,
            "measurements": found,
            "mean": {
                "cosine": _mean([each["cosine"] for each in found], none),
                "cosine_by_layer": _mean([each["cosine_by_layer"] for each in found], np.stack([none] * layers)),
                "norms": norms,
                "norms_by_layer": {
                    task: _mean([each["norms_by_layer"][task] for each in found], np.full(layers, np.nan))
                    for task in self.tasks
                },
                "conflicting": _mean([_is_negative(each["cosine"]) for each in found], none),
            },
        }

    def take(self) -> dict[str, float]:
        """Return `cosine_<a>_<b>` of every two tasks: the mean over the measurements since the last call."""
        new, self._logged = self.measurements[self._logged :], len(self.measurements)
        if not new:
            return {}
        mean = _mean([each["cosine"] for each in new], np.full((len(self.tasks), len(self.tasks)), np.nan))
        pairs = itertools.combinations(range(len(self.tasks)), 2)
        return {f"cosine_{self.tasks[a]}_{self.tasks[b]}": mean[a][b] for a, b in pairs if mean[a][b] is not None}

    def restore(self, content: Any) -> None:
        """Continue the measurements of a checkpoint.

        Args:
            content: the content of its `conflict.json`.

        Raises:
            ValueError: if the content is damaged, or belongs to other tasks or layers.
        """
        if not isinstance(content, dict) or not isinstance(content.get("measurements"), list):
            raise ValueError("`measurements` should be a list")
        if (content.get("tasks"), content.get("layers")) != (self.tasks, self.layers):
            raise ValueError("`tasks` and `layers` should be those of the model")
        context = (self.tasks, self.layers)
        found = [_Measurement.model_validate(each, context=context) for each in content["measurements"]]
        self.measurements = [each.model_dump() for each in found]
        self._logged = len(self.measurements)


def _norms(products: np.ndarray) -> np.ndarray:
    """Return the norms of gradients from their inner products, shape (…, tasks); NaN for zero and if not finite."""
    squares = np.diagonal(products, axis1=-2, axis2=-1)
    return np.sqrt(np.where((squares > 0) & np.isfinite(squares), squares, np.nan))


def _cosines(products: np.ndarray) -> np.ndarray:
    norms = _norms(products)
    with np.errstate(invalid="ignore"):
        return np.clip(products / (norms[..., :, None] * norms[..., None, :]), -1.0, 1.0)


def _is_negative(cosines: _Matrix) -> np.ndarray:
    values = np.array(cosines, dtype=float)
    return np.where(np.isnan(values), np.nan, values < 0)


def _mean(values: Sequence[Any], none: np.ndarray) -> Any:
    """Return the mean over measurements, elementwise and without null, as plain numbers.

    Args:
        values: the values of each measurement.
        none: the mean without measurements, which is NaN in all places.
    """
    stacked = np.stack([none, *(np.array(each, dtype=float) for each in values)])
    known = ~np.isnan(stacked)
    total, count = np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0)
    return _plain(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _plain(values: Any) -> Any:
    """Return numbers as plain data with six digits, and None for NaN."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [_plain(each) for each in values]
    return None if math.isnan(values) else float(f"{float(values):.{_DIGITS}g}")
