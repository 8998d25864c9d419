"""The rows of an earlier optimizer step, found again from the schedule of the sampler."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler

_ROWS_SHOWN = 10


class BegunEpoch(NamedTuple):
    """The start of an epoch, or of the remainder of an epoch after a checkpoint.

    Attributes:
        sampler: the sampler of the batches.
        epoch: the sampler's epoch.
        step: the number of optimizer steps before.
        batches: the number of the epoch's batches before.
    """

    sampler: MixtureBatchSampler
    epoch: int
    step: int
    batches: int


def rows_of_step(
    begun: BegunEpoch, step: int, accumulated: int, processes: Sequence[int]
) -> dict[str, list[int]] | None:
    """Return the positions of the rows of an optimizer step in the windows of each dataset.

    Args:
        begun: the epoch of the step.
        step: the number of the step, counted from 1.
        accumulated: number of batches per step.
        processes: the processes whose rows are returned.

    Returns:
        The positions by dataset; None for a mixture with streams, whose rows have no positions.
    """
    sampler = begun.sampler
    if sampler.mixture.is_streamed:
        return None
    first = begun.batches + (step - 1 - begun.step) * accumulated
    sampler.set_epoch(begun.epoch)
    batches = itertools.islice(sampler.steps(), first, min(first + accumulated, len(sampler)))
    parts = [batch[process :: sampler.num_processes] for batch in batches for process in processes]
    positions = np.sort(np.concatenate(parts))
    offsets = sampler.mixture.offsets
    return {
        name: own.tolist()
        for number, name in enumerate(sampler.mixture.datasets)
        if len(own := positions[(offsets[number] <= positions) & (positions < offsets[number + 1])] - offsets[number])
    }


def describe_rows(mixture: TaskMixture, positions: dict[str, list[int]] | None, tasks: Sequence[str]) -> str:
    """Return the rows of a step in words, such as `rows 3, 7 of ewt/train`.

    Args:
        mixture: the mixture.
        positions: the result of `rows_of_step`.
        tasks: the tasks for which a row must have a label; all rows are named without tasks.

    Returns:
        At most ten rows per dataset, with their numbers in the dataset, counted from 0.
    """
    if positions is None:
        feeding = [data.name for data in mixture.datasets.values() if not tasks or set(tasks) & set(data.feeds)]
        return f"rows of {', '.join(feeding)} (a stream has no row numbers)"
    parts = []
    for name, found in positions.items():
        encoded = mixture.datasets[name]
        if isinstance(encoded, EncodedDataset) and (rows := _labelled_rows(encoded, found, tasks)):
            shown, more = ", ".join(map(str, rows[:_ROWS_SHOWN])), len(rows) - _ROWS_SHOWN
            more_text = f" and {more} more" if more > 0 else ""
            parts.append(f"{'rows' if len(rows) > 1 else 'row'} {shown}{more_text} of {encoded.name}")
    return "; ".join(parts)


def _labelled_rows(encoded: EncodedDataset, positions: list[int], tasks: Sequence[str]) -> list[int]:
    windows = encoded.windows[positions]
    columns = [windows[LABEL_PREFIX + task] for task in tasks if task in encoded.feeds]
    return sorted(
        {
            row
            for number, row in enumerate(windows["row"])
            if not tasks or any(column[number] is not None for column in columns)
        }
    )
