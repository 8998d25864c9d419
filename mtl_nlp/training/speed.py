"""The speed of a training: sub-words per second, and the used share of what a device can compute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.training.counting import Work

_SIZE = 4096
_SECONDS = 0.05


class Speed:
    """The clock of a training, which stands still in evaluations and while checkpoints are written.

    Args:
        utilization: the computation of the used share of the devices; None to leave the share out.
    """

    def __init__(self, utilization: Utilization | None = None) -> None:
        self.utilization = utilization
        self.reset()

    def reset(self) -> None:
        """Start a training."""
        self._tokens = self._squares = 0
        self._seconds, self._running_since = 0.0, 0.0
        self._is_running = False
        self._total_tokens, self._total_seconds = 0, 0.0

    def begin_step(self) -> None:
        """Begin an optimizer step, before its batches are made."""
        if not self._is_running:
            self._is_running, self._running_since = True, time.monotonic()

    def add(self, work: Work) -> None:
        """Add the counts of an optimizer step over all processes."""
        self._tokens += work.sub_words
        self._squares += work.squares

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the context, and until the next step."""
        self._stop()
        yield

    def take(self) -> dict[str, float]:
        """Return the entries of the log since the last call; call it when the device has finished the steps.

        Returns:
            `tokens_per_second`, the sub-words without padding of all processes per second; and `mfu`, see
            [`Utilization`].
        """
        self._stop()
        tokens, seconds, squares = self._tokens, self._seconds, self._squares
        self._total_tokens, self._total_seconds = self._total_tokens + tokens, self._total_seconds + seconds
        self._tokens = self._squares = 0
        self._seconds = 0.0
        if not tokens or not seconds:
            return {}
        share = {} if self.utilization is None else {"mfu": self.utilization.share(tokens, squares, seconds)}
        return {"tokens_per_second": tokens / seconds, **share}

    @property
    def mean(self) -> float | None:
        """Sub-words per second of the training since its start or last resume; None before the first log."""
        return self._total_tokens / self._total_seconds if self._total_seconds else None

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            self._seconds += time.monotonic() - self._running_since


class Utilization:
    """The used share of the devices' matrix rate, the model FLOPs utilization of Chowdhery et al. (2022), appendix B.

    A training computes 6 · P · tokens + 12 · layers · hidden size · Σ length² operations for P parameters without
    embeddings: twice the operations of the forward pass for the backward pass, and no padding.

    Args:
        model: the model.
        device: the device of this process.
        dtype: the number format of the products.
        processes: the number of processes, each with a device of the same kind.
        rate: the operations per second of a device; measured by default, which takes about 50 ms.
    """

    def __init__(
        self,
        model: MultitaskModel,
        device: torch.device,
        dtype: torch.dtype,
        processes: int,
        rate: float | None = None,
    ) -> None:
        config = model.config.text_config
        self._per_token = 6 * model.num_parameters(exclude_embeddings=True)
        self._per_square = 12 * config.num_hidden_layers * config.hidden_size
        self._rate = (rate or matrix_rate(device, dtype)) * processes

    def share(self, tokens: int, squares: int, seconds: float) -> float:
        """Return the used share.

        Args:
            tokens: the number of sub-words of all processes.
            squares: the sum of the squared lengths of their rows.
            seconds: the time.
        """
        return (self._per_token * tokens + self._per_square * squares) / (seconds * self._rate)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = _SIZE, seconds: float = _SECONDS) -> float:
    """Measure the operations per second of a device in products of square matrices.

    Args:
        device: the device.
        dtype: the number format.
        size: the number of rows and columns of the matrices.
        seconds: the least duration of the measurement, after a first product that is not measured.
    """
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.matmul(a, b)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    product()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        product()
        count += 1
    return 2.0 * size**3 * count / (time.monotonic() - began)
