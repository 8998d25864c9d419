"""Mixtures with streamed datasets, which are read during training, in the schedule of the sampler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from mtl_nlp.data.canonical import reading
from mtl_nlp.data.encoding import EncodedStream
from mtl_nlp.data.rows import SOURCE
from mtl_nlp.errors import DataError
from mtl_nlp.mixture.sampler import LengthWindow, MixtureBatchSampler
from mtl_nlp.mixture.step_size import FixedRows


class StreamReader:
    """A reader of one process's share of a stream, pass after pass without end.

    Each pass reads the files in a different order, and rows are shuffled in blocks of `buffer_size`. The state of the
    reader is the state of the stream at the start of a block. To resume, the reader therefore skips the rows before the
    block in the block's file, and reads the block again.

    Args:
        stream: the stream.
        seed: seed of the order, which also depends on pass and block.
        process_index: index of this process, counted from 0.
        num_processes: number of processes. Unless this number divides the number of files, each process reads all rows
            and keeps its share.
    """

    def __init__(self, stream: EncodedStream, seed: list[int], process_index: int, num_processes: int) -> None:
        self.stream = stream
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self._block: list[dict[str, Any]] = []
        self._block_start: dict[str, Any] | None = None
        self._open(0)

    def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next rows.

        Raises:
            DataError: if the stream has no row for this process, or a row is not valid or cannot be read.
        """
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            if self._used >= len(self._block):
                self._read_block()
            part = self._block[self._used : self._used + count - len(rows)]
            self._used += len(part)
            rows += part
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return the reader's position as JSON-serializable data."""
        return {"pass": self._pass, "block": self._number, "source": self._block_start, "used": self._used}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to the position of a reader of the same stream.

        Args:
            state: the result of that reader's `state_dict`.

        Raises:
            DataError: if the state does not belong to the stream.
        """
        self._open(state["pass"])
        if state["block"] > 1:
            try:
                # The saved pass keeps its order of files, even if the seed or the place in the recipe changed.
                self._source.set_epoch(state["source"]["epoch"])
                self._source.load_state_dict(state["source"])
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise DataError(
                    f"{self.stream.name}: the position in the checkpoint does not belong to this stream. Resume with "
                    f"the files of the checkpoint's run, or start a new run."
                ) from error
            self._rows = iter(self._source)
            self._number = state["block"] - 1
        if state["block"] > 0:
            self._read_block()
            # After loading a state, a source reports its previous state until iteration starts.
            self._block_start, self._used = state["source"], state["used"]

    def _open(self, number: int) -> None:
        self._source = split_dataset_by_node(self.stream.windows, self.process_index, self.num_processes)
        # The order of the files depends on the epoch. `shuffle` would hold rows in a buffer that a resumed run loses.
        self._source.set_epoch(int(np.random.default_rng([*self.seed, number]).integers(1, 2**31)))
        self._rows = iter(self._source)
        self._pass, self._number, self._used, self._block = number, 0, 0, []
        self._block_start = None

    def _read_block(self) -> None:
        start = self._source.state_dict() if self._number else None
        with reading(self.stream.name):
            rows = list(itertools.islice(self._rows, self.stream.buffer_size))
        if not rows:
            # In a later pass a process may get different files, and perhaps only files without rows.
            if self._number == 0 and self._pass == 0:
                raise DataError(
                    f"{self.stream.name}: process {self.process_index} of {self.num_processes} gets no rows. "
                    f"Leave out `streaming`, or use fewer processes."
                )
            self._open(self._pass + 1)
            self._read_block()
            return
        rng = np.random.default_rng([*self.seed, self._pass, self._number])
        self._block = [rows[index] for index in rng.permutation(len(rows))]
        self._block_start, self._used = start, 0
        self._number += 1


class _WorkerError(DataError):
    """A `DataError` raised in a worker. DataLoader raises it again with the worker's traceback as its text."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rstrip().rpartition(f"{type(self).__name__}: ")[2])


class MixtureStream(TorchIterableDataset):
    """The batches of a mixture with streams, as lists of rows with the state at the start of the batch's window.

    The batches follow the sampler's windows. Every process takes its share of each dataset's rows in a window, groups
    these rows by length, and yields as many batches as the other processes, in the same order of length.

    Args:
        sampler: the schedule.

    Raises:
        ValueError: if the sampler's steps do not have a fixed number of rows.
    """

    def __init__(self, sampler: MixtureBatchSampler) -> None:
        if not isinstance(sampler.step_size, FixedRows):
            raise ValueError("A MixtureStream needs steps with a fixed number of rows. Found a token budget.")
        self.sampler = sampler
        self._step_size = sampler.step_size
        self.start_at(0, 0, None)

    def start_at(self, epoch: int, batches: int, state: Mapping[str, Any] | None) -> None:
        """Set the start of the next iteration.

        Args:
            epoch: the epoch.
            batches: number of batches of the epoch that were trained on. The iteration yields None for each.
            state: the state that was yielded with the last trained batch; None for the first rows of the streams.
        """
        self._epoch, self._batches, self._state = epoch, batches, state

    def __len__(self) -> int:
        """Return the number of this process's batches in an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]] | None]:
        """Yield the batches of the epoch, each with its state.

        Raises:
            DataError: if a stream has no row for this process, or a row is not valid or cannot be read.
        """
        try:
            yield from itertools.repeat(None, self._batches)
            yield from self._remaining()
        except DataError as error:
            if get_worker_info() is None:
                raise
            raise _WorkerError(str(error)) from error

    def _remaining(self) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
        """Yield the batches of the epoch that were not trained on yet."""
        sampler, names = self.sampler, list(self.sampler.mixture.datasets)
        readers = {
            number: StreamReader(dataset, [sampler.seed, number], sampler.process_index, sampler.num_processes)
            for number, dataset in enumerate(sampler.mixture.datasets.values())
            if isinstance(dataset, EncodedStream)
        }
        start, end, position = self._epoch * len(self) + self._batches, (self._epoch + 1) * len(self), 0
        first = None
        if self._state is not None:
            first = self._state["window"]
            for number, reader in readers.items():
                if names[number] in self._state["readers"]:  # a missing dataset is new in the recipe
                    reader.load_state_dict(self._state["readers"][names[number]])
        for window in sampler.windows():
            begun, position = position, position + self._step_size.count_steps(int(window.counts.sum()))
            # With changed settings the state may belong to a later window than the one in which training continues.
            if position <= start and (first is None or window.number < first):
                continue
            state = {"window": window.number, "readers": {names[n]: r.state_dict() for n, r in readers.items()}}
            for index, rows in enumerate(self._batches_of(window, readers), start=begun):
                if start <= index < end:
                    yield rows, state
            if position >= end:
                return

    def _batches_of(self, window: LengthWindow, readers: Mapping[int, StreamReader]) -> list[list[dict[str, Any]]]:
        """Return this process's batches of a window in the order of training."""
        sampler, mixture = self.sampler, self.sampler.mixture
        pools: list[list[dict[str, Any]]] = []
        totals: list[int] = []
        dealt = 0
        for number in np.flatnonzero(window.counts).tolist():
            count = int(window.counts[number])
            own = range((sampler.process_index - dealt) % sampler.num_processes, count, sampler.num_processes)
            if number in readers:
                rows = [{**row, SOURCE: number} for row in readers[number].take(len(own))]
            else:
                walked = sampler.walk(number, int(window.drawn[number]), count)[own]
                rows = [*mixture.__getitems__(walked + mixture.offsets[number])]
            if mixture.batching == "homogeneous" or not pools:
                pools.append(rows)
                totals.append(count)
            else:
                pools[0] += rows
                totals[0] += count
            dealt = totals[-1]
        batches = []
        # Without this shuffle rows of equal length, such as truncated ones, would stay in the order of their datasets.
        own_rng = np.random.default_rng([sampler.seed, window.number, sampler.process_index])
        for rows, total in zip(pools, totals, strict=True):
            pool = [rows[index] for index in own_rng.permutation(len(rows))]
            pool.sort(key=lambda row: -row["length"])
            starts = [sampler.rows_per_batch * step for step in range(self._step_size.count_steps(total))]
            batches += [pool[start:end] for start, end in itertools.zip_longest(starts, starts[1:])]
        rng = np.random.default_rng([sampler.seed, window.number])
        return [batches[index] for index in rng.permutation(len(batches))]
