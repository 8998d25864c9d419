"""Additional entries of the training log: losses and weights of tasks, the pull, and padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from mtl_nlp.modeling.loss_multitask import StepCounts


class TrainingLog:
    """The sums over the optimizer steps since the last log.

    Args:
        tasks: the names of all tasks.
        device: the device on which losses are summed. The host waits for the device only when the log is written.
    """

    def __init__(self, tasks: Sequence[str], device: torch.device) -> None:
        self.tasks = list(tasks)
        self.device = device
        self._start()

    def _start(self) -> None:
        self._sums = torch.zeros(len(self.tasks), device=self.device)  # of this process
        self._left_out = torch.zeros(len(self.tasks), device=self.device)  # of this process
        self._skipped: dict[str, int] = {}
        self._pull: torch.Tensor | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self._units: dict[str, float] = {}  # of this process
        self._counts = StepCounts(0, {}, {})  # of all processes, like the following
        self._steps = self._sub_words = self._positions = 0

    def add_step(
        self, counts: StepCounts, sub_words: int, positions: int, own_units: Mapping[str, float] | None = None
    ) -> None:
        """Add a step.

        Args:
            counts: the counts over all processes.
            sub_words: the number of sub-words over all processes.
            positions: the number of positions with padding over all processes.
            own_units: the labelled units of this process by task; by default those of `counts`.
        """
        for task, units in (counts.units if own_units is None else own_units).items():
            self._units[task] = self._units.get(task, 0) + units
        self._counts += counts
        self._steps += 1
        self._sub_words += sub_words
        self._positions += positions

    def add_losses(self, loss_sums: Sequence[torch.Tensor] | torch.Tensor) -> None:
        """Add the summed losses of a micro-batch of this process, in the order of the tasks."""
        self._sums += torch.stack(list(loss_sums)).detach()

    def add_left_out(self, units: Mapping[str, float]) -> None:
        """Add the labelled units of this process whose loss was left out, by task."""
        for task, count in units.items():
            self._left_out[self.tasks.index(task)] += count

    def add_skips(self, names: Sequence[str]) -> None:
        """Add a step with a skip of the named tasks, which are equal in all processes."""
        self._skipped = self._skipped | {name: self._skipped.get(name, 0) + 1 for name in names}

    def add_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Add a step's loss weights, which are equal in all processes."""
        for task, weight in weights.items():
            # The sum of the differences from 1, the weight of a task in the steps that do not name the task.
            self._weights[task] = self._weights.get(task, 0.0) + (weight.detach() - 1.0)

    def add_pull(self, pull: torch.Tensor) -> None:
        """Add a step's weighted pull, which is equal in all processes."""
        self._pull = pull.detach() if self._pull is None else self._pull + pull.detach()

    def so_far(self) -> dict[str, float]:
        """Return the mean loss over the labelled units of this process since the last log, by task."""
        sums, left_out = self._sums.tolist(), self._left_out.tolist()
        units = [self._units.get(task, 0) - left for task, left in zip(self.tasks, left_out, strict=True)]
        return {task: one / count for task, one, count in zip(self.tasks, sums, units, strict=True) if count > 0}

    def take(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Return the entries, and reset all sums.

        Args:
            total: a function that sums a tensor over all processes.

        Returns:
            `loss_<task>`, the mean over labelled units; `weight_<task>` and `pull`, means over steps; `skipped_<task>`,
            the number of steps with a skip of the task, if there are any; and `padding`, the share of positions without
            a sub-word.
        """
        logs: dict[str, float] = {}
        sums, left_out = total(torch.cat([self._sums, self._left_out])).reshape(2, -1).tolist()
        for task, loss_sum, left in zip(self.tasks, sums, left_out, strict=True):
            if (units := self._counts.units.get(task, 0) - left) > 0:
                logs[f"loss_{task}"] = loss_sum / units
        logs |= {f"skipped_{name}": count for name, count in self._skipped.items()}
        for task, weight in self._weights.items():
            logs[f"weight_{task}"] = 1.0 + float(weight) / max(self._steps, 1)
        if self._pull is not None:
            logs["pull"] = float(self._pull) / max(self._steps, 1)
        logs["padding"] = 1.0 - self._sub_words / max(self._positions, 1)
        self._start()
        return logs
