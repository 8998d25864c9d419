"""Sums over all processes of numbers that are in the memory of the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.distributed as dist


class HostSums:
    """Sums over all processes for which no process waits for its device.

    A sum on the device, as of gradients, would be read only after all work that the device was given before.

    Args:
        device: the device of the process.
        processes: the number of processes.
    """

    def __init__(self, device: torch.device, processes: int) -> None:
        self.device = device
        self.processes = processes

    @cached_property
    def _group(self) -> dist.ProcessGroup | None:
        """A group of all processes that can sum tensors of the host. All processes create the group together."""
        return None if self.device.type == "cpu" else dist.new_group(backend="gloo")

    def begin(self, numbers: Sequence[float]) -> Callable[[], list[float]]:
        """Begin a sum, without waiting for the other processes.

        Args:
            numbers: the numbers of this process.

        Returns:
            A function that waits for the numbers of the other processes, and returns the sums.
        """
        if self.processes == 1:
            return lambda: list(numbers)
        # One type in all processes, since a number can be an integer or a sum of weights.
        total = torch.tensor(numbers, dtype=torch.float64)
        pending = dist.all_reduce(total, group=self._group, async_op=True)

        def end() -> list[float]:
            pending.wait()
            return total.tolist()

        return end
