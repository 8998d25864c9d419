"""Movement: how far training moved an encoder from the encoder it started from, by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.adapters_multitask import merged_state
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.transfer.encoder_layers import EncoderLayers
from mtl_nlp.transfer.inspected_texts import InspectedTexts, TextBatch, groups_of, hidden_states


class Movement(NamedTuple):
    """The movement of the encoder as some tasks read it.

    Attributes:
        tasks: the tasks, which have the same adapters.
        weights: ‖W − W₀‖ / ‖W₀‖ of the embeddings and each layer, with adapters merged into W; None for an encoder
            whose layers are unknown.
        cka: the linear CKA of the hidden states after the embeddings and after each layer: 1 if the states are equal up
            to rotation and scale, 0 if they have nothing in common.
    """

    tasks: list[str]
    weights: list[float | None] | None
    cka: list[float | None]


class LinearCKA:
    """Linear centred kernel alignment (Kornblith et al. 2019), computed batch by batch in float64.

    CKA(X, Y) = ‖YᵀX‖²_F / (‖XᵀX‖_F · ‖YᵀY‖_F), where the columns of X and Y have a mean of 0.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Any] = [0.0, 0.0]
        self._products: list[Any] = [0.0, 0.0, 0.0]

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add rows of X, shape (rows, p), and the same rows of Y, shape (rows, q)."""
        x, y = x.double(), y.double()
        self._count += len(x)
        self._sums = [self._sums[0] + x.sum(0), self._sums[1] + y.sum(0)]
        pairs = ((x, x), (y, y), (y, x))
        self._products = [total + a.T @ b for total, (a, b) in zip(self._products, pairs, strict=True)]

    def value(self) -> float | None:
        """Return the CKA; None if X or Y is constant."""
        of_x, of_y = self._sums
        centres = (torch.outer(of_x, of_x), torch.outer(of_y, of_y), torch.outer(of_y, of_x))
        parts = [product - centre / self._count for product, centre in zip(self._products, centres, strict=True)]
        norms = [float(part.norm()) for part in parts]
        # Rounding leaves a small rest of the centred products of constant columns.
        scales = [float(product.norm()) for product in self._products[:2]]
        if any(norm <= 1e-12 * scale for norm, scale in zip(norms[:2], scales, strict=True)):
            return None
        return norms[2] ** 2 / (norms[0] * norms[1])


def measure_movement(
    model: MultitaskModel, start: MultitaskModel, layers: EncoderLayers | None, texts: InspectedTexts
) -> list[Movement]:
    """Compare an encoder with the encoder that it started from.

    Args:
        model: the trained model, in evaluation mode.
        start: a model with the encoder, and the adapters if there are some, from which the training started.
        layers: the layers of the encoder; None if they are unknown.
        texts: the texts for the hidden states.

    Returns:
        A movement for each set of adapters; a single one for a model without adapters of tasks.

    Raises:
        RecipeError: if the encoders have different weights.
    """
    found = []
    for adapters, tasks in groups_of(model, texts.tasks).items():
        before = start.adapters_of(tasks[0])
        state, origin = merged_state(model.encoder, adapters), merged_state(start.encoder, before)
        check_same_shapes(state, origin)
        weights = None if layers is None else relative_norms(state, origin, layers)
        found.append(Movement(tasks, weights, _cka(model, adapters, start, before, texts)))
    return found


def check_same_shapes(state: Mapping[str, torch.Tensor], origin: Mapping[str, torch.Tensor]) -> None:
    """Check that two encoders have the same weights.

    Raises:
        RecipeError: if a weight is missing in one of them or has a different shape.
    """
    wrong = [name for name in {**state, **origin} if _shape(state, name) != _shape(origin, name)]
    if wrong:
        raise RecipeError(
            f"encoder: the model did not start from this encoder. Its weight {wrong[0]} has the shape "
            f"{_shape(state, wrong[0])} instead of {_shape(origin, wrong[0])}. Give the recipe that the model was "
            f"trained with."
        )


def _shape(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def relative_norms(
    state: Mapping[str, torch.Tensor], origin: Mapping[str, torch.Tensor], layers: EncoderLayers
) -> list[float | None]:
    """Return ‖W − W₀‖ / ‖W₀‖ over all weights of the embeddings, and of each layer.

    The embeddings are all weights outside of the layers. Layers that share their weights have the same value.

    Args:
        state: the encoder's weights by name.
        origin: the weights of the encoder that it started from.
        layers: the layers of the encoder.
    """
    sums: dict[int | None, np.ndarray] = {}
    for name, weight in state.items():
        if weight.is_floating_point():
            first, second = weight.double(), origin[name].to(weight.device).double()
            squares = np.array([float((first - second).square().sum()), float(second.square().sum())])
            place = layers.layer_of(name)
            sums[place] = sums.get(place, np.zeros(2)) + squares
    first_of = {name: layers.names.index(name) for name in layers.names}
    return [_ratio(sums.get(place)) for place in (None, *(first_of[name] for name in layers.names))]


def _ratio(squares: np.ndarray | None) -> float | None:
    return None if squares is None or squares[1] == 0 else float(np.sqrt(squares[0] / squares[1]))


def _cka(
    model: MultitaskModel,
    adapters: tuple[str, ...],
    start: MultitaskModel,
    before: tuple[str, ...],
    texts: InspectedTexts,
) -> list[float | None]:
    measures: list[LinearCKA] = []
    for batch in tqdm(texts.batches, desc="Movement", unit=" batches", disable=None):
        places = read_positions(batch)
        trained = hidden_states(model, adapters, batch.inputs)
        original = hidden_states(start, before, batch.inputs)
        measures = measures or [LinearCKA() for _ in trained]
        for measure, ours, theirs in zip(measures, trained, original, strict=True):
            measure.add(ours[places], theirs[places])
    return [measure.value() for measure in measures]


def read_positions(batch: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows and positions of the first sub-words of all words, or of all sub-words for unsplit texts."""
    words = list(_word_positions(batch.features))
    if not words:
        return torch.nonzero(batch.inputs["attention_mask"], as_tuple=True)
    found = torch.tensor(words, device=batch.inputs["input_ids"].device)
    return found[:, 0], found[:, 1]


def _word_positions(features: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, int]]:
    for row, feature in enumerate(features):
        yield from ((row, position) for position in feature["positions"])
