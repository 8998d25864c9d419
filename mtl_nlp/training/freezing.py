"""Freezing: tasks whose validation scores fall are not trained any further."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState

from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.best import validation_scores
from mtl_nlp.training.step import StepLoss


class Frozen(NamedTuple):
    """The freezing of a task.

    Attributes:
        step: the optimizer step of the evaluation after which the task was frozen.
        best_step: the optimizer step of the task's best evaluation until then.
    """

    step: int
    best_step: int

    def to_dict(self) -> dict[str, int]:
        """Return the steps as plain data."""
        return self._asdict()


def frozen_tasks(
    history: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task], patience: int | None, until: int | None = None
) -> dict[str, Frozen]:
    """Return the tasks that are frozen: the tasks whose score had no new best for `patience` evaluations in a row.

    The result depends on nothing but the training log, so that a resumed run freezes the same tasks. A new best exceeds
    the old best. An evaluation without a score of the task does not count, and nor does a score of 0 before the first
    other score: early in training, a span F1 is 0 in many evaluations. A frozen task stays frozen.

    Args:
        history: the entries of the training log, see `TrainerState.log_history`.
        tasks: the tasks by name.
        patience: the number of evaluations; None to freeze no task.
        until: the last optimizer step whose evaluations count; all evaluations count by default.
    """
    found = {}
    for name, task in tasks.items():
        scores = validation_scores(history, name, task)
        steps = [step for step in sorted(scores) if until is None or step <= until]
        best, waited = 0, 0
        for number, step in enumerate(steps):
            is_best = number == 0 or scores[step] > scores[steps[best]]
            has_begun = scores[step] != 0.0 or scores[steps[best]] != 0.0
            best, waited = (number, 0) if is_best else (best, waited + has_begun)
            if patience is not None and waited >= patience:
                found[name] = Frozen(step, steps[best])
                break
    return found


def describe_frozen(task: str, frozen: Mapping[str, int]) -> str:
    """Return a sentence about a frozen task.

    Args:
        task: the name of the task.
        frozen: the steps, see `Frozen.to_dict`.
    """
    return (
        f"{task} has the weight 0 from step {frozen['step']} on: until then, its score on validation was best at step "
        f"{frozen['best_step']} (loss.freeze_when_overfit)"
    )


class FreezingCallback(TrainerCallback):
    """Callback that freezes tasks after each evaluation, and stops the training once every trained task is frozen.

    Args:
        step: the joint loss.
        tasks: all tasks by name.
        trained: the names of the tasks with training data.
        patience: the number of evaluations without a new best, see `frozen_tasks`.
        note: a function that shows a sentence to the user.
    """

    def __init__(
        self,
        step: StepLoss,
        tasks: Mapping[str, Task],
        trained: Collection[str],
        patience: int,
        note: Callable[[str], None],
    ) -> None:
        self.step = step
        self.tasks = tasks
        self.trained = trained
        self.patience = patience
        self.note = note
        self._is_training = False

    def frozen(self, state: TrainerState) -> dict[str, Frozen]:
        """Return the frozen tasks of a training."""
        return frozen_tasks(state.log_history, self.tasks, self.patience)

    def is_over(self, state: TrainerState) -> bool:
        """Return whether every trained task is frozen."""
        return set(self.trained) <= self.frozen(state).keys()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Freeze the tasks that were frozen before the checkpoint of a resumed run."""
        self._is_training = True
        self.step.frozen = frozenset(self.frozen(state))

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Freeze tasks, and stop the training once every trained task is frozen."""
        if not self._is_training:
            return
        found, before = self.frozen(state), self.step.frozen or frozenset()
        for task in found.keys() - before:
            self.note(describe_frozen(task, found[task].to_dict()))
        self.step.frozen = frozenset(found)
        if self.is_over(state):
            self.note(f"the training stops at step {state.global_step}, since the weight of every task is 0")
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ignore evaluations after the training."""
        self._is_training = False
