"""Predictions and scores from the outputs of a model; predictions have the order of a dataset's rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.collator import MultitaskDataCollator, WithFeatures
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.rows import columns_of
from mtl_nlp.evaluation.dealing import deal_batches
from mtl_nlp.messages import Shown, table
from mtl_nlp.modeling.answering_multitask import Logits, arranged
from mtl_nlp.modeling.ragged_multitask import Ragged
from mtl_nlp.modeling.tasks_multitask import Task


class Pieces(NamedTuple):
    """The logits of some windows for one task.

    Attributes:
        task: the name of the task.
        rows: the index of the source row of each window, shape (windows,).
        first_words: the index of the first word that belongs to each window, shape (windows,); -1 for no word.
        logits: the logits of each window, as `Answering.cut_all` returns them.
    """

    task: str
    rows: np.ndarray
    first_words: np.ndarray
    logits: Logits


class Answer(NamedTuple):
    """The prediction of a task for one text.

    Attributes:
        label: the predicted label in canonical form.
        confidence: the probability of the label, see `LabelKind.confidence`; None if it was not asked for.
    """

    label: Any
    confidence: Any = None


Answers = dict[str, dict[str, dict[int, Answer]]]
"""Dataset -> task -> index of the source row -> answer."""


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Scores of all tasks on one split.

    Attributes:
        scores: for each task, its scores by name, from 0 to 1 (errors and correlations in their usual range).
        mtl_score: the mean of the tasks' primary scores.
        frames: the frame accuracy by dataset, see `frame_accuracies`.
    """

    scores: dict[str, dict[str, float]]
    mtl_score: float
    frames: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = [(task, name, f"{value:.4f}") for task, values in self.scores.items() for name, value in values.items()]
        rows += [(name, "frame accuracy", f"{value:.4f}") for name, value in self.frames.items()]
        return table(("task", "score", "value"), [*rows, ("all", "mtl_score", f"{self.mtl_score:.4f}")])

    def flat(self) -> dict[str, float]:
        """Return the scores in one dict, `{"pos_accuracy": …, "mtl_score": …}`, as logged by Trainer."""
        scores = {f"{task}_{name}": value for task, values in self.scores.items() for name, value in values.items()}
        return {**scores, "mtl_score": self.mtl_score}


class BatchWindows(NamedTuple):
    """The places of the windows of a batch in their texts.

    Attributes:
        rows: the index of the source row of each window, shape (B,).
        first_words: as in `Pieces`, shape (B,).
        positions: for each window, the positions of the first sub-words of its words.
    """

    rows: np.ndarray
    first_words: np.ndarray
    positions: Ragged

    @classmethod
    def of(cls, features: Sequence[Mapping[str, Any]]) -> BatchWindows:
        """Return the places of rows with the columns of `EncodedDataset.windows`."""
        columns = columns_of(features, {"row", "words", "positions"})
        words = Ragged.of(columns["words"].values)
        firsts = np.full(len(words), -1, dtype=np.int64)
        filled = words.sizes > 0
        firsts[filled] = words.values[(np.cumsum(words.sizes) - words.sizes)[filled]]
        return cls(np.asarray(columns["row"].values), firsts, Ragged.of(columns["positions"].values))


def pieces_of_batch(
    features: Sequence[Mapping[str, Any]],
    rows: Mapping[str, torch.Tensor],
    logits: Mapping[str, torch.Tensor],
    tasks: Mapping[str, Task],
) -> list[Pieces]:
    """Return the logits of the windows of a batch for each task.

    Args:
        features: the rows of the batch, with the columns of `EncodedDataset.windows`.
        rows: for each task, the rows that its logits are for, shape (n_t,).
        logits: for each task, logits of these rows.
        tasks: the tasks by name.
    """
    windows = BatchWindows.of(features)
    pieces = []
    for name, task in tasks.items():
        chosen = rows[name].cpu().numpy()
        cut = task.kind.cut_all(_array_of(logits[name]), windows.positions.take(chosen))
        pieces.append(Pieces(name, windows.rows[chosen], windows.first_words[chosen], cut))
    return pieces


def _array_of(values: Any) -> np.ndarray:
    tensor = torch.as_tensor(values)
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def _joined(pieces: Iterable[Pieces], tasks: Mapping[str, Task]) -> Iterator[tuple[str, list[int], Logits]]:
    """Yield each task with windows, the indices of the source rows of its texts, and the logits of each text."""
    by_task: dict[str, list[Pieces]] = {}
    for piece in pieces:
        if len(piece.rows):
            by_task.setdefault(piece.task, []).append(piece)
    for name, found in by_task.items():
        rows, firsts = (np.concatenate(column) for column in list(zip(*found, strict=True))[1:3])
        order = np.lexsort((firsts, rows))  # windows have consecutive words
        texts, counts = np.unique(rows, return_counts=True)
        windows = arranged([piece.logits for piece in found], order)
        yield name, texts.tolist(), tasks[name].kind.join_all(windows, counts)


def join_texts(pieces: Iterable[Pieces], tasks: Mapping[str, Task]) -> dict[str, dict[int, np.ndarray]]:
    """Return the logits of each text for each task, by index of the source row."""
    joined: dict[str, dict[int, np.ndarray]] = {name: {} for name in tasks}
    for name, rows, logits in _joined(pieces, tasks):
        joined[name] = {row: np.asarray(values) for row, values in zip(rows, logits, strict=True)}
    return joined


def decode_texts(
    pieces: Iterable[Pieces], tasks: Mapping[str, Task], *, with_confidence: bool = False
) -> dict[str, dict[int, Answer]]:
    """Decode texts from the logits of all their windows.

    The windows of a text are joined before decoding, so a span can cross the border of two windows.

    Args:
        pieces: the logits of the windows.
        tasks: the tasks by name.
        with_confidence: whether to compute the probabilities of the labels.

    Returns:
        For each task, the answer by index of the source row.
    """
    answers: dict[str, dict[int, Answer]] = {name: {} for name in tasks}
    for name, rows, logits in _joined(pieces, tasks):
        kind = tasks[name].kind
        labels = kind.decode_all(logits)
        scores = kind.confidence_all(logits, labels) if with_confidence else itertools.repeat(None, len(labels))
        answers[name] = dict(zip(rows, map(Answer, labels, scores), strict=True))
    return answers


def in_row_order(answers: Mapping[str, Mapping[int, Answer]], encoded: EncodedDataset) -> dict[str, list[Any]]:
    """Return the predicted labels of each task in the order of the split's rows; None for rows without a label."""
    without = Answer(None)
    rows = range(encoded.num_rows)
    return {name: [answers[name].get(row, without).label for row in rows] for name in encoded.references}


def decode_pieces(pieces: Iterable[Pieces], encoded: EncodedDataset, tasks: Mapping[str, Task]) -> dict[str, list[Any]]:
    """Decode all texts of a split, with the predictions of each task in the order of the split's rows."""
    return in_row_order(decode_texts(pieces, tasks), encoded)


@torch.no_grad()
def score_model(
    model: Callable[..., Any],
    datasets: Mapping[str, EncodedDataset],
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    rows_per_batch: int = 32,
) -> Evaluation:
    """Score a model, or a function with the interface of a multitask model, without a Trainer.

    Args:
        model: a function of `input_ids`, `attention_mask` and, if the tokenizer returns them, `token_type_ids`. It
            returns an output whose `logits` are the logits of all rows for each task.
        datasets: the encoded split of each dataset.
        tasks: all tasks by name.
        tokenizer: the model's tokenizer.
        rows_per_batch: maximum number of windows per batch.
    """
    collate = WithFeatures(MultitaskDataCollator(tokenizer, tasks))
    predictions = {}
    for name, encoded in datasets.items():
        fed = {task: tasks[task] for task in encoded.references}
        pieces = []
        (share,) = deal_batches(encoded, rows_per_batch)
        for features, batch in DataLoader(encoded.rows, batch_sampler=share.batches, collate_fn=collate):
            rows = batch.pop("rows")
            del batch["labels"]
            batch.pop("weights", None)
            logits = model(**batch).logits
            pieces += pieces_of_batch(features, rows, {task: logits[task][rows[task]] for task in fed}, fed)
        predictions[name] = decode_pieces(pieces, encoded, fed)
    return score(predictions, datasets, tasks)


def labelled_words(prediction: Any, reference: Any) -> tuple[Any, Any]:
    """Return a prediction and its reference without the words that have no label (None in the reference)."""
    if not isinstance(reference, list) or None not in reference:
        return prediction, reference
    places = [place for place, label in enumerate(reference) if label is not None]
    return [prediction[place] for place in places], [reference[place] for place in places]


def score_answers(answers: Answers, datasets: Mapping[str, EncodedDataset], tasks: Mapping[str, Task]) -> Evaluation:
    """Score every task on the labelled rows of all datasets that feed it, see `score`."""
    return score({name: in_row_order(answers[name], encoded) for name, encoded in datasets.items()}, datasets, tasks)


def score(
    predictions: Mapping[str, Mapping[str, list[Any]]],
    datasets: Mapping[str, EncodedDataset],
    tasks: Mapping[str, Task],
) -> Evaluation:
    """Score every task on the labelled rows of all datasets that feed it.

    Args:
        predictions: dataset -> task -> predictions as `decode_pieces` returns them.
        datasets: the encoded split of each dataset.
        tasks: all tasks by name.
    """
    from mtl_nlp.evaluation.metrics import compute

    scores: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        pairs = [labelled_words(*pair) for pair in labelled_pairs(predictions, datasets, name)]
        if pairs:
            scores[name] = compute(task.kind.metric, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    primary = [scores[name][task.kind.primary_score] for name, task in tasks.items() if name in scores]
    return Evaluation(scores, float(np.mean(primary)), frame_accuracies(predictions, datasets, tasks))


def labelled_pairs(
    predictions: Mapping[str, Mapping[str, list[Any]]], datasets: Mapping[str, EncodedDataset], task: str
) -> list[tuple[Any, Any]]:
    """Return the prediction and the label of each row with a label for a task, over all datasets.

    Args:
        predictions: dataset -> task -> predictions in the order of the rows.
        datasets: the encoded split of each dataset.
        task: the name of the task.
    """
    return [
        (prediction, reference)
        for dataset, encoded in datasets.items()
        if task in encoded.references
        for prediction, reference in zip(predictions[dataset][task], encoded.references[task][:], strict=True)
        if reference is not None
    ]


def frame_accuracies(
    predictions: Mapping[str, Mapping[str, list[Any]]],
    datasets: Mapping[str, EncodedDataset],
    tasks: Mapping[str, Task],
) -> dict[str, float]:
    """Return the sentence-level semantic frame accuracy of each dataset that labels one class and one kind of spans.

    It is the share of texts in which the class of the text and all spans are right, such as an intent with its slots
    (Goo et al. 2018, Slot-Gated Modeling for Joint Slot Filling and Intent Prediction). Texts without one of the two
    labels do not count. A dataset with several tasks of either kind has no frame accuracy.

    Args:
        predictions: dataset -> task -> predictions as `decode_pieces` returns them.
        datasets: the encoded split of each dataset.
        tasks: all tasks by name.
    """
    found = {}
    for name, encoded in datasets.items():
        kinds = [(task, tasks[task].kind) for task in encoded.references if task in tasks]
        classes = [task for task, kind in kinds if kind.display == "class"]
        spans = [task for task, kind in kinds if kind.display == "marks" and kind.mark_names != kind.labels]
        if len(classes) != 1 or len(spans) != 1:
            continue
        columns = [
            [*zip(predictions[name][task], encoded.references[task][:], strict=True)] for task in (*classes, *spans)
        ]
        labelled = [pairs for pairs in zip(*columns, strict=True) if all(gold is not None for _, gold in pairs)]
        if labelled:
            found[name] = float(np.mean([all(guess == gold for guess, gold in pairs) for pairs in labelled]))
    return found
