"""The watch over a trial in training: its scores are reported to the study, which may end the trial early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl
from transformers.trainer_callback import TrainerState

from mtl_nlp.errors import CommandError
from mtl_nlp.messages import time_text

QUARTERS = 4
"""The number of equal parts of a training, after each of which but the last the trial is scored."""

_UNTIMED_STEPS, _TIMED_STEPS = 1, 4
"""The steps before the clock starts, and the steps that are timed to estimate the length of a trial."""

Report = Callable[[int, Mapping[str, float]], None]
"""A function that reports the metrics of an evaluation after a quarter of the training, and ends the trial or not."""


class TooLongError(CommandError):
    """A budget in which not a single trial fits; the message has an estimate."""


class TrialWatch(TrainerCallback):
    """Callback that reports the evaluations of a trial, and measures whether the trial fits into the time left.

    The evaluation after the last step is left out, since the trained model is scored anyway.

    Args:
        report: the function that reports; None for a trial that runs to its end.
        seconds: the longest time that a trial may be expected to take; None for any time.
        skips_last: whether no callback of Trainer needs the evaluation after the last step.
    """

    def __init__(self, report: Report | None, seconds: float | None, *, skips_last: bool) -> None:
        self.report = report
        self.seconds = seconds
        self.skips_last = skips_last
        self._reported = 0
        self._clock = 0.0

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """Leave out the last evaluation, and end a trial that is too long for the budget.

        Raises:
            TooLongError: if the first steps show that the trial does not fit into the time left.
        """
        if state.global_step == _UNTIMED_STEPS:
            self._clock = time.monotonic()
        if self.seconds is not None and state.global_step == _UNTIMED_STEPS + _TIMED_STEPS:
            expected = (time.monotonic() - self._clock) / _TIMED_STEPS * state.max_steps
            if expected > self.seconds:
                raise TooLongError(
                    f"--budget: one trial takes about {minutes_text(expected)}, and the time for trials is "
                    f"{minutes_text(self.seconds)}. Allow more time (ten trials: --budget "
                    f"{budget_text(10 * expected)}), or fewer rows (datasets.NAME.max_rows)."
                )
        if self.skips_last and state.global_step >= state.max_steps:
            control.should_evaluate = False
            return control
        return None

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the first evaluation after each quarter of the training.

        Evaluations at equal shares of the training are compared, also between trainings of different lengths.
        """
        quarter = int(QUARTERS * state.global_step / max(state.max_steps, 1) + 1e-9)
        if self.report is not None and metrics is not None and self._reported < quarter < QUARTERS:
            self._reported = quarter
            self.report(quarter, metrics)


def minutes_text(seconds: float) -> str:
    """Return a time as `time_text` does, and a time below a second in tenths, since small trials are fast."""
    return time_text(seconds) if seconds >= 1 else f"{seconds:.1f} s"


def budget_text(seconds: float) -> str:
    """Return a time as a value of `--budget`, rounded up."""
    unit, name = next((unit, name) for unit, name in ((3600, "h"), (60, "m"), (1, "s")) if seconds >= unit or unit == 1)
    return f"{math.ceil(seconds / unit)}{name}"
