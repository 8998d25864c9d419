"""Ablation: the score of each task without an attention head, or without a layer.

A head is switched off by zeros instead of its part of the input of the attention's output projection (Michel et al.
2019, "Are Sixteen Heads Really Better than One?"). A layer is skipped: its input passes on as its output.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.stats import rankdata
from torch import nn
from tqdm.auto import tqdm

from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.transfer.encoder_layers import EncoderLayers
from mtl_nlp.transfer.inspected_texts import InspectedTexts, answer_batch

NEEDED_SHARE = 0.1
"""The share of all heads that a task needs most."""


class Ablated(NamedTuple):
    """The changes of the scores by ablation.

    Attributes:
        heads: for each task, the change of its score without each head, shape (layers, heads).
        layers: for each task, the change of its score without each layer, shape (layers,).
    """

    heads: dict[str, np.ndarray]
    layers: dict[str, np.ndarray]


@dataclass
class LayerSwitches:
    """A context in which heads and layers of an encoder can be switched off.

    The layers below `start` are not computed again: the output of the layer before `start` is repeated from a pass
    that recorded it.

    Attributes:
        encoder: the encoder.
        layers: the layers of the encoder, with known projections.
        skipped: the layer that passes its input on; None for no layer.
        zeroed: the layer and head that is switched off; None for no head.
        start: the first layer that is computed.
        recorded: the layer whose outputs are recorded; None for no layer.
        batch: the index of the current batch, by which outputs are recorded.
    """

    encoder: nn.Module
    layers: EncoderLayers
    skipped: int | None = None
    zeroed: tuple[int, int] | None = None
    start: int = 0
    recorded: int | None = None
    batch: int = 0
    _layer: int = -1
    _encoder_pass: int = -1
    _outputs: dict[tuple[int, int], Any] = field(default_factory=dict)
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._handles.append(self.encoder.register_forward_pre_hook(self._begin))
        for module in dict.fromkeys(self.layers.modules):
            module.forward = functools.partial(self._run, module.forward)
        for projection in dict.fromkeys(self.layers.projections or ()):
            self._handles.append(projection.register_forward_pre_hook(self._zero))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        for module in dict.fromkeys(self.layers.modules):
            del module.forward  # the method of the class is visible again

    def begin_batch(self, batch: int) -> None:
        """Begin a batch: its encoder passes are counted from 0."""
        self.batch, self._encoder_pass = batch, -1

    def _begin(self, *_: object) -> None:
        self._layer = -1
        self._encoder_pass += 1

    def _run(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute, skip or repeat the next layer."""
        self._layer += 1
        key = (self.batch, self._encoder_pass)
        if self._layer < self.start:
            return self._outputs[key]  # only the output of the last one of these layers is read
        output = forward(*args, **kwargs)
        if self._layer == self.skipped:
            states = args[0] if args else kwargs["hidden_states"]
            output = (states, *output[1:]) if isinstance(output, tuple) else states
        if self._layer == self.recorded:
            self._outputs[key] = output
        return output

    def _zero(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Replace a head's part of the projection's input by zeros."""
        if self.zeroed is None or self._layer != self.zeroed[0]:
            return None
        states = args[0].clone()
        size = states.shape[-1] // self.layers.heads
        states[..., self.zeroed[1] * size : (self.zeroed[1] + 1) * size] = 0
        return (states, *args[1:])


def ablate(model: MultitaskModel, layers: EncoderLayers, texts: InspectedTexts, scores: Mapping[str, float]) -> Ablated:
    """Score all tasks without each head and without each layer. One pass over the texts serves all tasks.

    Args:
        model: the model in evaluation mode.
        layers: the layers of its encoder, with known projections.
        texts: the texts to score.
        scores: the score of each task with all heads and layers.
    """
    count = len(layers.modules)
    heads = {name: np.zeros((count, layers.heads)) for name in texts.tasks}
    skipped = {name: np.zeros(count) for name in texts.tasks}
    progress = tqdm(total=count * (layers.heads + 2) - 1, desc="Ablation", unit=" passes", disable=None)
    with LayerSwitches(model.encoder, layers) as switches, progress:

        def measure() -> dict[str, float]:
            pieces = []
            for number, batch in enumerate(texts.batches):
                switches.begin_batch(number)
                pieces += list(answer_batch(model, batch, texts.tasks))
            progress.update()
            return texts.scores(pieces)

        for layer in range(count):
            switches.start = layer
            for head in range(layers.heads):
                switches.zeroed = (layer, head)
                for name, score in measure().items():
                    heads[name][layer, head] = score - scores[name]
            switches.zeroed, switches.skipped = None, layer
            for name, score in measure().items():
                skipped[name][layer] = score - scores[name]
            switches.skipped, switches.recorded = None, layer
            if layer + 1 < count:
                measure()
            switches.recorded = None
    return Ablated(heads, skipped)


def rank_correlations(changes: dict[str, np.ndarray]) -> list[list[float | None]]:
    """Return Spearman's rank correlation of each two tasks' changes; None if all changes of a task are equal."""
    ranks = [rankdata(found.ravel()) for found in changes.values()]

    def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
        return None if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])

    return [[correlation(a, b) for b in ranks] for a in ranks]


def needed_heads(changes: np.ndarray, share: float = NEEDED_SHARE) -> list[tuple[int, int]]:
    """Return the heads that a task needs most: at most the given share of all heads, and only if its score falls.

    Args:
        changes: the change of the task's score without each head, shape (layers, heads).
        share: the share of the heads, rounded up.

    Returns:
        (layer, head) in the order of the falls, the largest first.
    """
    order = np.argsort(changes, axis=None, kind="stable")[: int(np.ceil(share * changes.size))]
    places = [divmod(int(place), changes.shape[1]) for place in order]
    return [(layer, head) for layer, head in places if changes[layer, head] < 0]


def overlap(heads: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the heads that several tasks need, those that one task needs, and the number that each task can lose.

    Args:
        heads: for each task, the change of its score without each head, shape (layers, heads).
    """
    needed = {name: needed_heads(changes) for name, changes in heads.items()}
    users: dict[tuple[int, int], list[str]] = {}
    for name, found in needed.items():
        for head in found:
            users.setdefault(head, []).append(name)
    return {
        "correlation": rank_correlations(heads),
        "shared": [
            {"layer": layer, "head": head, "tasks": tasks}
            for (layer, head), tasks in sorted(users.items())
            if len(tasks) > 1
        ],
        "own": {name: [[*head] for head in found if len(users[head]) == 1] for name, found in needed.items()},
        "harmless": {name: int((changes >= 0).sum()) for name, changes in heads.items()},
    }
