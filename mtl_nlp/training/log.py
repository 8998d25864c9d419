"""What the training log tells beside Trainer's own: the loss of each task, the pull, and the share of padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mtl_nlp.modeling.loss_multitask import StepCounts


class TrainingLog:
    """Adds up over the steps since the last log.

    Args:
        tasks: the tasks' names.
        device: where losses are added up, so that nothing waits for it before the log is written.
    """

    def __init__(self, tasks: Sequence[str], device: torch.device) -> None:
        self.tasks = list(tasks)
        self.device = device
        self._start()

    def _start(self) -> None:
        self._sums = torch.zeros(len(self.tasks), device=self.device)  # of this process
        self._pull: torch.Tensor | None = None
        self._counts = StepCounts(0, {}, {})  # of all processes, as the rest
        self._steps = self._sub_words = self._positions = 0

    def add_step(self, counts: StepCounts, sub_words: int, positions: int) -> None:
        """Count a step of all processes: its labels, its sub-words, and the positions of its padded batches."""
        self._counts += counts
        self._steps += 1
        self._sub_words += sub_words
        self._positions += positions

    def add_losses(self, loss_sums: Sequence[torch.Tensor]) -> None:
        """Add the tasks' summed losses of a micro-batch of this process."""
        self._sums += torch.stack(list(loss_sums)).detach()

    def add_pull(self, pull: torch.Tensor) -> None:
        """Add a step's weighted pull, which is the same in all processes."""
        self._pull = pull.detach() if self._pull is None else self._pull + pull.detach()

    def take(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """`loss_<task>`, the mean over labelled units, `padding`, and `pull`, the mean over steps; all start anew.

        Args:
            total: adds up a tensor over processes.
        """
        logs = {}
        for task, loss_sum in zip(self.tasks, total(self._sums).tolist(), strict=True):
            if units := self._counts.units.get(task):
                logs[f"loss_{task}"] = loss_sum / units
        if self._pull is not None:
            logs["pull"] = float(self._pull) / max(self._steps, 1)
        logs["padding"] = 1.0 - self._sub_words / max(self._positions, 1)
        self._start()
        return logs
