"""Batches that a thread makes while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class Prefetcher(Iterator[Any]):
    """The batches of an iterator in their order, of which a thread makes some ahead.

    A thread needs no copies between processes, and works while the main thread waits in the backward pass without the
    lock of the interpreter. The thread ends with `close`, and at the end of the interpreter after its current batch.

    Args:
        batches: the iterator. Until `close`, no other thread should use the iterator.
        ahead: the number of batches that are made ahead.
        device: the device of the process, for whose use the thread pins memory; None for a CPU.

    Attributes:
        batches: the iterator.
    """

    def __init__(self, batches: Iterator[Any], ahead: int, device: torch.device | None = None) -> None:
        self.batches = batches
        # A new thread would pin memory for the first device, whichever device the process uses.
        start = {} if device is None else {"initializer": torch.accelerator.set_device_index, "initargs": (device,)}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", **start)
        self._made: deque[Future[Any]] = deque(self._thread.submit(next, batches) for _ in range(ahead))

    def __next__(self) -> Any:
        """Return the next batch; an error of the iterator is raised here."""
        batch = self._made.popleft().result()
        self._made.append(self._thread.submit(next, self.batches))
        return batch

    def close(self) -> None:
        """Wait for the end of the thread, which makes no further batch."""
        self._thread.shutdown(cancel_futures=True)
