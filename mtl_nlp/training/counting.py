"""The counts of an optimizer step over all processes, which each process reads from the rows of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_nlp.data.collator import MultitaskDataCollator, checked_batch, rows_for
from mtl_nlp.data.rows import SOURCE, Rows
from mtl_nlp.data.teachers import with_teachers
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.loss_multitask import StepCounts, count_labels
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.routing_multitask import encoder_passes
from mtl_nlp.modeling.tasks_multitask import Task


class Work(NamedTuple):
    """The counts of one or several batches.

    Attributes:
        counts: the counts of rows and labels.
        sub_words: the number of sub-words.
        squares: the sum of the squared numbers of sub-words of the rows.
        positions: the number of sub-words with padding.
        passes: the number of rows that the encoder reads.
        drawn: the number of rows from each dataset of the mixture; empty if unknown.
    """

    counts: StepCounts
    sub_words: int
    squares: int
    positions: int
    passes: int
    drawn: tuple[int, ...]

    def numbers(self) -> list[float]:
        """Return all numbers in a fixed order, to be summed over batches and processes."""
        counts = self.counts
        parts = [self.sub_words, self.squares, self.positions, self.passes, counts.rows]
        return [*parts, *counts.task_rows.values(), *counts.units.values(), *self.drawn]

    def with_numbers(self, numbers: Sequence[float]) -> Work:
        """Return counts of the same tasks and datasets with the numbers of `numbers`."""
        tasks = list(self.counts.task_rows)
        sub_words, squares, positions, passes, rows, *task_rows = map(int, numbers[: 5 + len(tasks)])
        units, drawn = numbers[5 + len(tasks) :][: len(tasks)], numbers[5 + 2 * len(tasks) :]
        counts = StepCounts(rows, dict(zip(tasks, task_rows, strict=True)), dict(zip(tasks, units, strict=True)))
        return Work(counts, sub_words, squares, positions, passes, tuple(map(int, drawn)))


class CountedBatch(dict[str, Any]):
    """A batch with its counts. A model accepts the batch like any other.

    Args:
        batch: the batch from the collator.
        work: the counts.
        is_complete: whether the counts are those of all processes; else, those of this process.
    """

    def __init__(self, batch: Mapping[str, Any], work: Work | None = None, *, is_complete: bool = False) -> None:
        super().__init__(batch)
        self.work = work
        self.is_complete = is_complete


class Counter:
    """The counts of the batches of a model.

    Args:
        model: the model. Only its tasks and the names of its adapters are kept, since data loaders send the counter to
            their workers.
    """

    def __init__(self, model: MultitaskModel) -> None:
        self.tasks: dict[str, Task] = dict(model.tasks)
        self.adapters = {name: model.adapters_of(name) for name in model.tasks}

    def count(self, batch: Mapping[str, Any], drawn: Sequence[int] = ()) -> Work:
        """Return the counts of a batch. If its tensors are on a device, the host waits for the device.

        Args:
            batch: the batch.
            drawn: the number of rows from each dataset.
        """
        mask = batch["attention_mask"]
        return self._work(batch, mask.sum(dim=1).cpu().numpy(), mask.numel(), drawn)

    def count_step(self, rows: Rows, processes: int, collator: MultitaskDataCollator, drawn: Sequence[int]) -> Work:
        """Return the counts of the batches of all processes, of which no other columns than the labels are read.

        Args:
            rows: the rows of all processes. Process i of n has the rows i, i + n, …
            processes: n, the number of processes.
            collator: the collator of the batches.
            drawn: the number of rows from each dataset.
        """
        lengths = np.asarray(rows.read({"length"})["length"].values)
        shares = [lengths[process::processes] for process in range(processes)]
        positions = sum(len(share) * collator.padded_length(int(share.max())) for share in shares)
        labels = collator.labels_of(rows, int(lengths.max()))
        return self._work(labels, lengths, positions, drawn)

    def _work(self, labels: Mapping[str, Any], lengths: np.ndarray, positions: int, drawn: Sequence[int]) -> Work:
        """Return the counts of rows, given the labels and the number of sub-words of the rows."""
        counts = StepCounts(len(lengths), *count_labels([labels], self.tasks))
        passes = encoder_passes(self.adapters, labels["rows"], in_one=True)
        read = sum(len(lengths) if each.rows is None else len(each.rows) for each in passes)
        of_rows = lengths.astype(np.int64)
        return Work(counts, int(of_rows.sum()), int(of_rows @ of_rows), positions, read, tuple(drawn))


class CountingCollator:
    """A collator that counts the rows and labels of a batch, where possible those of all processes.

    The batches of [`MultitaskDataCollator`] are a function of the rows, so that each process counts the rows of all
    processes itself. An own collator may change labels, and the rows of a stream are known to one process.

    Args:
        collator: the collator of the batch.
        counter: the counter.
        datasets: the number of datasets in the mixture, which numbers its rows in the column `SOURCE`.
        processes: the number of processes.
    """

    def __init__(self, collator: Callable[[Any], Any], counter: Counter, datasets: int, processes: int) -> None:
        self.collator = collator
        self.counter = counter
        self.datasets = datasets
        self.processes = processes

    def __call__(self, features: Sequence[dict[str, Any]]) -> CountedBatch:
        batch = checked_batch(self.collator(rows_for(self.collator, features)))
        if type(self.collator) is MultitaskDataCollator and isinstance(features, Rows) and features.of_step is not None:
            rows = features.of_step
            work = self.counter.count_step(rows, self.processes, self.collator, self._drawn(rows))
            return CountedBatch(batch, work, is_complete=True)
        work = self.counter.count(batch, self._drawn(features))
        return CountedBatch(batch, work, is_complete=self.processes == 1)

    def _drawn(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        sources = rows.sources if isinstance(rows, Rows) else [row[SOURCE] for row in rows]
        return np.bincount(sources, minlength=self.datasets).tolist()


def training_collator(
    collator: Callable[[Any], Any], model: MultitaskModel, mixture: TaskMixture, processes: int
) -> Callable[[Any], Any]:
    """Return a collator whose batches also have their counts, and the scores of teachers if a dataset has any.

    Args:
        collator: the collator of the batches.
        model: the model.
        mixture: the training data.
        processes: the number of processes.
    """
    counting = CountingCollator(collator, Counter(model), len(mixture.datasets), processes)
    return with_teachers(counting, mixture.datasets.values(), model.tasks)
