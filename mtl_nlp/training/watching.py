"""A Trainer that ends a run as soon as a loss, gradient or weight is not finite, before anything is saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from mtl_nlp.errors import RunError
from mtl_nlp.messages import is_finite
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.training.callbacks import EpochStart
from mtl_nlp.training.divergence import Divergence, DivergenceWatch, diverged
from mtl_nlp.training.restoring import RestoringTrainer
from mtl_nlp.training.step_rows import describe_rows, rows_of_step


class WatchingTrainer(RestoringTrainer):
    """A Trainer that reads its watch at each log of the loss, before evaluations and checkpoints, and at the end.

    Attributes:
        watch: the record of losses and gradients that were not finite.
        epochs: the callback that knows the epochs of this training.
        train_dataset: the mixture.
    """

    watch: DivergenceWatch
    epochs: EpochStart
    train_dataset: TaskMixture

    def stop_if_diverged(self) -> None:
        """Check, in all processes together, that all losses, gradients and weights of the training are finite.

        Raises:
            RunError: if they are not; the message names the first step, the tasks and the rows.
        """
        weights = self.model.named_parameters()
        self._raise_if_diverged(self.accelerator.reduce(self.watch.record(weights), "sum"))

    def sum_and_check(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a vector over all processes, and check losses and gradients with the same reduction.

        Raises:
            RunError: if a loss or gradient was not finite; the message names the first step, the tasks and the rows.
        """
        total = self.accelerator.reduce(torch.cat([tensor, self.watch.record()]), "sum")
        self._raise_if_diverged(total[len(tensor) :])
        return total[: len(tensor)]

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate, see `EvaluatingTrainer.evaluate`.

        Raises:
            RunError: in training, if a loss, gradient or weight is not finite.
        """
        if self.is_in_train:
            self.stop_if_diverged()
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log entries, with None instead of numbers that are not finite, since JSON has no such numbers.

        Raises:
            RunError: if a loss in training is not finite, or another number except the norm of the gradient, which
                overflows in some steps with fp16.
        """
        if "loss" in logs:
            wrong = [key for key, value in logs.items() if key != "grad_norm" and not math.isfinite(value)]
            if wrong:
                raise RunError(
                    f"Training has diverged: by step {self.state.global_step}, {', '.join(wrong)} became infinite or "
                    f"NaN. Train again with a lower `learning_rate`."
                )
        elif "train_loss" in logs:  # the end of training, before Trainer loads the best model and deletes checkpoints
            self.stop_if_diverged()
        logged: dict[str, Any] = {key: value if is_finite(value) else None for key, value in logs.items()}
        super().log(logged, start_time)
        logs |= {key: value for key, value in logged.items() if key not in logs}  # Trainer adds the epoch

    def _raise_if_diverged(self, record: torch.Tensor) -> None:
        found = self.watch.read(record)
        if found is None:
            return
        raise self.divergence(found, self.state.global_step - found.steps_ago)

    def divergence(self, found: Divergence, step: int, *, skipped: int = 0) -> RunError:
        """Return the error that ends a run, with the rows of the step, and forget the steps so far.

        Args:
            found: the divergence.
            step: the optimizer step.
            skipped: the number of steps in a row that were skipped before the run ended.
        """
        rows = ""
        epochs = [begun for begun in self.epochs.begun if begun.step < step]
        if epochs and not found.of_weights:
            positions = rows_of_step(epochs[-1], step, self.args.gradient_accumulation_steps, found.processes)
            rows = describe_rows(self.train_dataset, positions, found.tasks)
        self.watch.reset()
        return diverged(found, step, rows, Path(self.args.output_dir), skipped)
