"""The scores of teachers: a file of each task beside the rows of a dataset, and their layout in a batch."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.rows import Column, columns_of
from mtl_nlp.modeling.ragged_multitask import Ragged
from mtl_nlp.modeling.tasks_multitask import Task

TEACHER_PREFIX = "teacher:"
"""The prefix of the columns of windows with the scores of a teacher, `teacher:<task>`."""
TEACHERS = "teachers"
"""The key of a batch under which the scores of teachers are, by task."""
_BLOCK = 1000
"""The number of windows that are written at once."""


def score_type(task: Task) -> np.dtype:
    """Return the type of the scores on disk: float16, or float32 for numbers, whose unit may be too large for it."""
    return np.dtype(np.float16 if task.kind.has_label_space else np.float32)


def write_scores(path: Path, task: Task, scores: Sequence[np.ndarray | None]) -> None:
    """Write the scores of a teacher to an Arrow file, as a whole, since other processes may read it.

    Args:
        path: the file.
        task: the task.
        scores: the scores of each window, in the order of the windows: shape (words, outputs), or (outputs,) for a
            text; None for a window without a label of the task.
    """
    dtype = score_type(task)
    schema = pa.schema([(TEACHER_PREFIX + task.name, pa.list_(pa.from_numpy_dtype(dtype)))])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file, pa.ipc.new_stream(file, schema) as stream:
        for start in range(0, len(scores), _BLOCK):
            block = scores[start : start + _BLOCK]
            flat = [np.empty(0, dtype) if each is None else each.astype(dtype).ravel() for each in block]
            offsets = np.cumsum([0, *map(len, flat)]).astype(np.int32)
            is_missing = pa.array([each is None for each in block])
            column = pa.ListArray.from_arrays(offsets, np.concatenate(flat), mask=is_missing)
            stream.write_batch(pa.record_batch([column], schema=schema))
    Path(file.name).replace(path)


def with_scores(encoded: EncodedDataset, files: Sequence[Path]) -> EncodedDataset:
    """Return a split whose windows also have the scores of teachers, which stay on disk (memory-mapped).

    Args:
        encoded: the split.
        files: a file of `write_scores` for each taught task.
    """
    scores = [Dataset.from_file(str(path)) for path in files]
    return dataclasses.replace(encoded, windows=concatenate_datasets([encoded.windows, *scores], axis=1))


class WithTeachers:
    """A collator that adds the scores of teachers to the batches of a different collator.

    The batch gets `teachers`, task -> the teacher's logits for the labels of the task in the batch, shape (n_t, L, C_t)
    with zeros off the first sub-words, or (n_t, C_t).

    Args:
        collator: the collator.
        tasks: the tasks that are taught, by name.
    """

    def __init__(self, collator: Callable[[Any], dict[str, Any]], tasks: Mapping[str, Task]) -> None:
        self.collator = collator
        self.tasks = tasks

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(features)
        columns = columns_of(features, {"positions", *(TEACHER_PREFIX + name for name in self.tasks)})
        length = batch["input_ids"].shape[1]
        nothing = Column(np.array([], dtype=np.int64), Ragged.of([], np.float32))
        batch[TEACHERS] = {
            name: _laid_out(task, columns.get(TEACHER_PREFIX + name, nothing), columns["positions"], length)
            for name, task in self.tasks.items()
        }
        return batch


def _laid_out(task: Task, scores: Column, positions: Column, length: int) -> torch.Tensor:
    outputs = task.kind.logits_shape(length)[-1]
    values = Ragged.of(scores.values, np.float32).values
    if not task.kind.labels_words:
        return torch.from_numpy(values.reshape(len(scores.rows), outputs))
    places = Ragged.of(positions.values).take(np.searchsorted(positions.rows, scores.rows))
    padded: np.ndarray = np.zeros((len(scores.rows), length, outputs), dtype=values.dtype)
    padded[places.numbers, places.values] = values.reshape(-1, outputs)
    return torch.from_numpy(padded)


def with_teachers(
    collator: Callable[[Any], dict[str, Any]], datasets: Iterable[Any], tasks: Mapping[str, Task]
) -> Callable[[Any], dict[str, Any]]:
    """Return a collator that also lays out the scores of teachers, if any of the datasets has scores.

    Args:
        collator: the collator.
        datasets: encoded datasets and streams.
        tasks: the tasks by name.
    """
    columns = {name for each in datasets for name in each.windows.column_names or ()}
    taught = {name: task for name, task in tasks.items() if TEACHER_PREFIX + name in columns}
    return WithTeachers(collator, taught) if taught else collator
