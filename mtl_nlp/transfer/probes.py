"""Probes: the score of each task if a linear layer reads the hidden states of each layer (Alain & Bengio 2017).

The probes are trained on frozen hidden states of the trained encoder. A task that scores well from a low layer needs
the layers above little.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import BatchWindows, Pieces
from mtl_nlp.modeling.heads_multitask import fit_to_encoder, pool
from mtl_nlp.modeling.label_kinds_multitask import LabelKind
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.inspected_texts import InspectedTexts, TextBatch, batches_of, groups_of, hidden_states

MOST_UNITS = {True: 4000, False: 2000}
"""The number of words (True) or texts (False) from which the probes of a task learn."""

_SEED = 0
_ABSENT = -1e4
"""The logit of a class that the probe's training words or texts lack."""


class Probed(NamedTuple):
    """The scores of the probes.

    Attributes:
        scores: for each task, its primary score from the embeddings and from each layer.
        units: for each task, the number of words or texts that its probes learned from.
    """

    scores: dict[str, list[float]]
    units: dict[str, int]


class Probe:
    """A linear layer on standardised features, whose outputs are logits that the task's kind decodes.

    Class ids are learned by logistic regression, sets of classes by one logistic regression per class, and numbers by
    ridge regression, with scikit-learn's default strengths.

    Args:
        kind: the label kind of the task.
        features: shape (units, hidden).
        targets: shape (units,) or (units, outputs), see `LabelKind.target_of`.
    """

    def __init__(self, kind: LabelKind, features: np.ndarray, targets: np.ndarray) -> None:
        self._outputs = len(kind.output_names)
        self._has_ids = kind.target_feature.dtype == "int32"
        self._is_number = not kind.has_label_space
        columns = [targets] if targets.ndim == 1 else list(targets.T)
        self._models = [self._fit(features, column) for column in columns]

    def _fit(self, features: np.ndarray, column: np.ndarray) -> Any:
        """Return a fitted model, or the only class of the targets."""
        known = np.isfinite(column) if self._is_number else column >= 0  # NaN and `IGNORED` stand for no label
        if self._is_number:
            return make_pipeline(StandardScaler(), Ridge()).fit(features[known], column[known])
        classes = column[known].astype(int)
        if len(set(classes.tolist())) == 1:
            return int(classes[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # further iterations hardly change the scores
            return make_pipeline(StandardScaler(), LogisticRegression(max_iter=100)).fit(features[known], classes)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits, shape (units, outputs)."""
        if self._is_number:
            return np.stack([model.predict(features) for model in self._models], axis=1)
        if not self._has_ids:
            return np.stack([_log_odds(model, features) for model in self._models], axis=1)
        logits = np.full((len(features), self._outputs), _ABSENT)
        (model,) = self._models
        if isinstance(model, int):
            logits[:, model] = 0.0
        else:
            found = model.decision_function(features)
            logits[:, model.classes_] = found if found.ndim == 2 else np.stack([np.zeros(len(found)), found], axis=1)
        return logits


def _log_odds(model: Any, features: np.ndarray) -> np.ndarray:
    """Return the log-odds of class 1 against class 0, shape (units,)."""
    if isinstance(model, int):
        return np.full(len(features), -_ABSENT if model else _ABSENT)
    return model.decision_function(features)


def probe_tasks(
    model: MultitaskModel,
    training: Mapping[str, EncodedDataset],
    texts: InspectedTexts,
    tokenizer: PreTrainedTokenizerBase,
) -> Probed:
    """Score each task from the hidden states of each layer.

    Args:
        model: the model in evaluation mode.
        training: the encoded training split of each dataset.
        texts: the texts to score.
        tokenizer: the model's tokenizer.
    """
    windows = {
        name: found for name, task in texts.tasks.items() if (found := training_windows(training, task, MOST_UNITS))
    }
    learned = [
        batch
        for dataset, encoded in training.items()
        for batch in batches_of(
            dataset,
            encoded,
            np.array(sorted(set().union(*(of_task.get(dataset, ()) for of_task in windows.values()))), dtype=int),
            model.tasks,
            tokenizer,
            model.device,
        )
    ]
    probes: dict[str, list[Probe]] = {}
    units: dict[str, int] = {}
    for adapters, names in groups_of(model, windows).items():
        examples = _examples(model, adapters, learned, {name: windows[name] for name in names}, texts.tasks)
        for name, (states, targets) in examples.items():
            units[name] = len(targets)
            shown = tqdm(states, desc=f"Probes of {name}", unit=" layers", disable=None)
            probes[name] = [Probe(texts.tasks[name].kind, layer, targets) for layer in shown]
    return Probed(_scores(model, probes, texts), units)


def training_windows(
    training: Mapping[str, EncodedDataset], task: Task, most: Mapping[bool, int]
) -> dict[str, set[int]]:
    """Draw the windows of the training splits from which the probes of a task learn, always the same ones.

    Args:
        training: the encoded training split of each dataset.
        task: the task.
        most: the number of words (True) or texts (False), of which each dataset of the task gives an equal part.

    Returns:
        dataset -> indices of windows; empty if no training row has a label.
    """
    fed = {name: encoded for name, encoded in training.items() if task.name in encoded.feeds}
    found = {}
    for name, encoded in fed.items():
        column = encoded.windows.data.column(LABEL_PREFIX + task.name)
        words = task.kind.labels_words
        sizes = [
            len(label.values) if words and label.is_valid else int(label.is_valid)
            for chunk in column.chunks
            for label in chunk
        ]
        order = np.random.default_rng(_SEED).permutation(len(sizes))
        drawn = np.array(sizes)[order]
        before = drawn.cumsum() - drawn
        if len(chosen := order[(drawn > 0) & (before < most[words] / len(fed))]):
            found[name] = set(chosen.tolist())
    return found


def _examples(
    model: MultitaskModel,
    adapters: tuple[str, ...],
    batches: Sequence[TextBatch],
    windows: Mapping[str, Mapping[str, set[int]]],
    tasks: Mapping[str, Task],
) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
    """Return the features of each layer, shape (units, hidden), and the targets of each task's chosen windows."""
    states: dict[str, list[list[np.ndarray]]] = {name: [] for name in windows}
    targets: dict[str, list[Any]] = {name: [] for name in windows}
    fitted = {name: fit_to_encoder(tasks[name], model.config.text_config) for name in windows}
    for batch in tqdm(batches, desc="Hidden states", unit=" batches", disable=None):
        chosen = {
            name: [row for row, window in enumerate(batch.windows) if window in of_task.get(batch.dataset, ())]
            for name, of_task in windows.items()
        }
        if not any(chosen.values()):
            continue
        hidden = hidden_states(model, adapters, batch.inputs)
        for name, rows in chosen.items():
            if rows:
                states[name].append(read_features(fitted[name], batch, rows, hidden))
                labels = [batch.features[row][LABEL_PREFIX + name] for row in rows]
                targets[name] += (
                    [each for label in labels for each in label] if tasks[name].kind.labels_words else labels
                )
    return {
        name: ([np.concatenate(layer) for layer in zip(*found, strict=True)], np.array(targets[name]))
        for name, found in states.items()
    }


def read_features(
    task: Task, batch: TextBatch, rows: Sequence[int], hidden: Sequence[torch.Tensor]
) -> list[np.ndarray]:
    """Return the hidden states that the head of a task reads, of each layer.

    Args:
        task: the task. For a task that labels words, the features are those of the words' first sub-words. Otherwise
            they are the mean over the text, the first or the last sub-word, as the head reads the text.
        batch: the batch.
        rows: the rows of the batch to read.
        hidden: the hidden states of the batch, shape (B, L, hidden) each.

    Returns:
        For each layer, an array of shape (units, hidden) in float32.
    """
    if task.kind.labels_words:
        places = [(row, position) for row in rows for position in batch.features[row]["positions"]]
        index = torch.tensor(places, dtype=torch.long, device=hidden[0].device).reshape(-1, 2)
        return [layer[index[:, 0], index[:, 1]].float().cpu().numpy() for layer in hidden]
    mask = batch.inputs["attention_mask"][rows]
    return [pool(layer[rows].float(), mask, task.pooled_by or "cls").cpu().numpy() for layer in hidden]


def _scores(
    model: MultitaskModel, probes: Mapping[str, Sequence[Probe]], texts: InspectedTexts
) -> dict[str, list[float]]:
    """Return the score of each probe."""
    pieces: dict[int, list[tuple[str, Pieces]]] = {}
    groups = groups_of(model, probes)
    fitted = {name: fit_to_encoder(texts.tasks[name], model.config.text_config) for name in probes}
    for batch in tqdm(texts.batches, desc="Probing", unit=" batches", disable=None):
        for adapters, names in groups.items():
            rows = {name: found for name in names if (found := batch.rows[name].tolist())}
            hidden = hidden_states(model, adapters, batch.inputs) if rows else ()
            for name, labelled in rows.items():
                features = read_features(fitted[name], batch, labelled, hidden)
                for layer, (probe, states) in enumerate(zip(probes[name], features, strict=True)):
                    found = _pieces(texts.tasks[name], batch, labelled, probe.logits(states))
                    pieces.setdefault(layer, []).append((batch.dataset, found))
    by_layer = [texts.scores(pieces[layer]) for layer in sorted(pieces)]
    return {name: [scores[name] for scores in by_layer] for name in probes}


def _pieces(task: Task, batch: TextBatch, rows: Sequence[int], logits: np.ndarray) -> Pieces:
    """Return the logits of windows; those of a word task have a row per word, and those of a text task a row."""
    windows, chosen = BatchWindows.of(batch.features), np.array(rows)
    of_windows = windows.positions.take(chosen).replaced(logits) if task.kind.labels_words else logits
    return Pieces(task.name, windows.rows[chosen], windows.first_words[chosen], of_windows)
