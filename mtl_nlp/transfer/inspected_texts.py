"""The texts of an inspection: a part of a split in batches, and scores and hidden states on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.dealing import windows_by_length
from mtl_nlp.evaluation.evaluator import Pieces, decode_texts, labelled_words, pieces_of_batch
from mtl_nlp.evaluation.metrics import compute
from mtl_nlp.modeling.encoders_multitask import encoder_arguments, encoder_inputs
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.routing_multitask import Route, routed
from mtl_nlp.modeling.tasks_multitask import Task

_ROWS_PER_BATCH = 32
_SEED = 0


class TextBatch(NamedTuple):
    """Windows of texts of one dataset.

    Attributes:
        dataset: the name of the dataset.
        windows: the indices of the windows in the dataset.
        features: the rows of `EncodedDataset.windows`.
        inputs: the inputs of the encoder, shape (B, L).
        rows: the rows with a label, for each task, shape (n_t,).
    """

    dataset: str
    windows: list[int]
    features: list[dict[str, Any]]
    inputs: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]


@dataclass(frozen=True)
class InspectedTexts:
    """Texts of one split.

    Attributes:
        tasks: the tasks with labels on these texts, by name.
        batches: the texts in batches, the longest first.
        references: dataset -> task -> index of the row -> label in canonical form.
        rows: the number of texts of each dataset.
    """

    tasks: dict[str, Task]
    batches: list[TextBatch]
    references: dict[str, dict[str, dict[int, Any]]]
    rows: dict[str, int]

    @property
    def units(self) -> dict[str, int]:
        """The number of labelled words or texts of each task."""
        return {
            name: sum(
                sum(1 for entry in label if entry is not None) if task.kind.labels_words else 1
                for of_dataset in self.references.values()
                for label in of_dataset.get(name, {}).values()
            )
            for name, task in self.tasks.items()
        }

    def scores(self, pieces: Iterable[tuple[str, Pieces]]) -> dict[str, float]:
        """Return the primary score of each task that has logits, given as (dataset, logits of windows)."""
        by_dataset: dict[str, list[Pieces]] = {name: [] for name in self.references}
        for dataset, piece in pieces:
            by_dataset[dataset].append(piece)
        pairs: dict[str, list[tuple[Any, Any]]] = {name: [] for name in self.tasks}
        for dataset, found in by_dataset.items():
            for name, answers in decode_texts(found, self.tasks).items():
                labels = self.references[dataset].get(name, {})
                pairs[name] += [(answers[row].label, label) for row, label in labels.items()] if answers else []
        return {name: _score(self.tasks[name], found) for name, found in pairs.items() if found}


def _score(task: Task, pairs: Sequence[tuple[Any, Any]]) -> float:
    kind, scored = task.kind, [labelled_words(*pair) for pair in pairs]
    return compute(kind.metric, [answer for answer, _ in scored], [label for _, label in scored])[kind.primary_score]


def draw_texts(
    datasets: Mapping[str, EncodedDataset],
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    rows: int,
) -> InspectedTexts:
    """Draw texts of each dataset at random, always the same ones, with all windows of a long text.

    Args:
        datasets: the encoded split of each dataset.
        tasks: all tasks of the model by name.
        tokenizer: the model's tokenizer.
        device: the device of the batches.
        rows: the largest number of texts of each dataset.
    """
    batches, references, counts = [], {}, {}
    for name, encoded in datasets.items():
        of_window = encoded.windows.data.column("row").to_numpy()
        chosen = np.unique(of_window)
        if len(chosen) > rows:
            chosen = np.sort(np.random.default_rng(_SEED).permutation(chosen)[:rows])
        counts[name] = len(chosen)
        batches += batches_of(name, encoded, np.flatnonzero(np.isin(of_window, chosen)), tasks, tokenizer, device)
        labels = {task: column[:] for task, column in encoded.references.items()}
        references[name] = {
            task: {row: column[row] for row in chosen.tolist() if column[row] is not None}
            for task, column in labels.items()
        }
    labelled = {task for of_dataset in references.values() for task, found in of_dataset.items() if found}
    return InspectedTexts({name: tasks[name] for name in tasks if name in labelled}, batches, references, counts)


def batches_of(
    name: str,
    encoded: EncodedDataset,
    windows: np.ndarray,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> list[TextBatch]:
    """Return some windows of a dataset in batches, the longest first.

    Args:
        name: the name of the dataset.
        encoded: the encoded split.
        windows: the indices of the windows.
        tasks: all tasks of the model by name.
        tokenizer: the model's tokenizer.
        device: the device of the batches.
    """
    collate = MultitaskDataCollator(tokenizer, tasks)
    batches = []
    for places in windows_by_length(encoded.lengths[windows], _ROWS_PER_BATCH):
        features = encoded.windows.select(windows[places]).to_list()
        batch = collate(features)
        rows = {task: found.to(device) for task, found in batch.pop("rows").items()}
        del batch["labels"]
        batch.pop("weights", None)
        inputs = {key: value.to(device) for key, value in batch.items()}
        batches.append(TextBatch(name, windows[places].tolist(), features, inputs, rows))
    return batches


@torch.no_grad()
def answer_batch(model: MultitaskModel, batch: TextBatch, tasks: Mapping[str, Task]) -> Iterator[tuple[str, Pieces]]:
    """Yield the logits of a batch as (dataset, logits of its windows for a task)."""
    logits = model(**batch.inputs, rows=batch.rows, tasks=list(tasks)).logits
    for piece in pieces_of_batch(batch.features, batch.rows, logits, tasks):
        yield batch.dataset, piece


def score_texts(model: MultitaskModel, texts: InspectedTexts) -> dict[str, float]:
    """Return the primary score of each task."""
    return texts.scores(piece for batch in texts.batches for piece in answer_batch(model, batch, texts.tasks))


def groups_of(model: MultitaskModel, tasks: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    """Return the tasks that read the same hidden states: those with the same adapters, by these adapters."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in tasks:
        groups.setdefault(model.adapters_of(name), []).append(name)
    return groups


@torch.no_grad()
def hidden_states(
    model: MultitaskModel, adapters: tuple[str, ...], inputs: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return the hidden states of an encoder with some adapters.

    Returns:
        The output of the embeddings and of each layer, shape (B, L, hidden) each.
    """
    with routed(Route((adapters,), ())):
        return model.encoder(
            **encoder_inputs(encoder_arguments(model.encoder), inputs), output_hidden_states=True
        ).hidden_states
