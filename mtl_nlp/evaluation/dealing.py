"""The evaluation batches of each process: complete texts, so that every process decodes its own texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtl_nlp.data.encoding import EncodedDataset

_BATCHES_OF_LONG_TEXTS = 4
"""Batches per group of texts with several windows, so that the short last windows of these texts share batches."""


class Share(NamedTuple):
    """The batches of one process.

    Attributes:
        batches: positions of windows, longest window first within a group of texts.
        repeated: number of batches at the end that only keep the number of forward passes equal; their output is
            discarded.
    """

    batches: list[list[int]]
    repeated: int


def windows_by_length(lengths: np.ndarray, rows_per_batch: int) -> list[list[int]]:
    """Return the positions of windows in batches, longest first.

    This order needs little padding, and the first batch needs the most memory.

    Args:
        lengths: number of sub-words of each window, shape (windows,).
        rows_per_batch: maximum number of windows per batch.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + rows_per_batch].tolist() for start in range(0, len(order), rows_per_batch)]


def text_groups(rows: np.ndarray, lengths: np.ndarray, rows_per_batch: int) -> list[list[int]]:
    """Return the positions of all windows in groups of complete texts of similar length, long texts first.

    Args:
        rows: the index of each window's text, shape (windows,).
        lengths: number of sub-words of each window, shape (windows,).
        rows_per_batch: maximum number of windows per group of texts with one window; groups of texts with several
            windows may have four times as many. A text with more windows forms its own group.
    """
    if not len(rows):
        return []
    windows = np.bincount(rows)
    longest = np.zeros(len(windows), dtype=np.int64)
    np.maximum.at(longest, rows, lengths)
    order = np.lexsort((np.arange(len(rows)), rows, -longest[rows], -windows[rows]))
    groups: list[list[int]] = [[]]
    for text in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
        limit = rows_per_batch if len(text) == 1 else _BATCHES_OF_LONG_TEXTS * rows_per_batch
        if groups[-1] and len(groups[-1]) + len(text) > limit:
            groups.append([])
        groups[-1] += text.tolist()
    return groups


def deal_batches(
    encoded: EncodedDataset, rows_per_batch: int, num_processes: int = 1, *, equal_passes: bool = False
) -> list[Share]:
    """Deal the evaluation batches out to the processes.

    Batches and their losses do not depend on the number of processes. All windows of a text are in one process, and all
    processes compute about equally many positions.

    Args:
        encoded: the encoded split.
        rows_per_batch: maximum number of windows per batch.
        num_processes: the number of processes.
        equal_passes: whether all processes should have equally many batches. Sharded parameters require this, since
            each forward pass gathers the parameters from all processes.

    Returns:
        The share of each process, by rank.
    """
    rows, lengths = encoded.windows.data.column("row").to_numpy(), encoded.lengths
    groups = [
        [[group[position] for position in batch] for batch in windows_by_length(lengths[group], rows_per_batch)]
        for group in text_groups(rows, lengths, rows_per_batch)
    ]

    def cost(batches: Sequence[Sequence[int]]) -> int:
        return sum(len(batch) * int(lengths[batch[0]]) for batch in batches)

    dealt: list[list[list[int]]] = [[] for _ in range(num_processes)]
    loads = [0] * num_processes
    for group in sorted(groups, key=cost, reverse=True):
        rank = loads.index(min(loads))
        dealt[rank] += group
        loads[rank] += cost(group)
    passes = max(map(len, dealt)) if equal_passes else 0
    cheapest = min((batch for group in groups for batch in group), key=lambda batch: cost([batch]), default=[])
    missing = [max(passes - len(batches), 0) for batches in dealt]
    return [Share(batches + [cheapest] * more, more) for batches, more in zip(dealt, missing, strict=True)]
