"""The time of measuring affinities, estimated from a few timed steps, and the length that fits into a budget."""

from __future__ import annotations

import math
import tempfile
import time
from typing import NamedTuple

from mtl_nlp.errors import CommandError
from mtl_nlp.messages import time_text
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer, plan_batches
from mtl_nlp.run.prepare import Run
from mtl_nlp.transfer.affinity_steps import AffinityCallback, rows_per_probe, short_run
from mtl_nlp.transfer.speed import rows_per_second

DEFAULT_BUDGET = 900.0
"""The seconds of a measurement without a number of steps or a budget: 15 minutes."""

DEFAULT_STEPS = 300
"""The optimizer steps of the joint training in which affinities are measured, if the recipe's own has as many."""

EVERY = 5
"""The optimizer steps from one measurement to the next; fewer in a training of fewer than 100 steps."""

FEWEST_STEPS = 20

_LEAST_MEASUREMENTS = 20
_RESERVE = 0.9
"""The share of the budget that the estimate may use."""

_START_SECONDS = 12.0
"""The time in which a process of a short training imports its libraries and loads the encoder."""


class StepsPlan(NamedTuple):
    """The joint training in which affinities are measured.

    Attributes:
        steps: the number of optimizer steps.
        every: the number of steps from one measurement to the next.
        seconds: the estimated time.
        wanted: the number of steps without a budget.
    """

    steps: int
    every: int
    seconds: float
    wanted: int


def recipe_steps(run: Run) -> int:
    """Return the number of optimizer steps in the complete training of a run."""
    arguments = training_arguments(run.recipe)
    return max(1, plan_batches(run, arguments).total_batches // arguments.gradient_accumulation_steps)


def interval_of(steps: int) -> int:
    """Return the number of steps from one measurement to the next, in a training of some steps."""
    return max(1, min(EVERY, steps // _LEAST_MEASUREMENTS))


def plan_steps(run: Run, steps: int | None, seconds: float | None) -> StepsPlan:
    """Return the joint training in which affinities are measured, shortened until it fits into a time.

    A few steps and one measurement are timed on this machine.

    Args:
        run: the run.
        steps: the number of optimizer steps; by default `DEFAULT_STEPS`, or those of the recipe if it has fewer.
        seconds: the time that is left; None for no limit.

    Raises:
        CommandError: if fewer than `FEWEST_STEPS` steps fit into the time.
    """
    wanted = steps or min(DEFAULT_STEPS, recipe_steps(run))
    of_step = _seconds_per_step(run)
    of_measurement = _seconds_per_measurement(run)

    def estimate(number: int) -> float:
        return number * of_step + number // interval_of(number) * of_measurement

    least = min(FEWEST_STEPS, wanted)
    limit = math.inf if seconds is None else _RESERVE * seconds
    # The time does not rise with every step, since a shorter training is measured more often.
    found = next((number for number in range(wanted, least - 1, -1) if estimate(number) <= limit), None)
    if found is None:
        raise too_small(estimate(least), f"{least} steps with {least // interval_of(least)} measurements")
    return StepsPlan(found, interval_of(found), estimate(found), wanted)


def too_small(seconds: float, what: str) -> CommandError:
    """Return the error for a budget in which too little can be measured.

    Args:
        seconds: the estimated time of the least that can be measured.
        what: the least that can be measured.
    """
    return CommandError(
        f"--budget: too short. {what} take about {time_text(seconds)}, besides loading the data. Give a longer budget, "
        f"or set `max_rows` in the datasets."
    )


class PairTimes(NamedTuple):
    """The times of the short trainings of pairs.

    Attributes:
        rows_per_second: the training rows per second.
        start: the seconds of a training's start and of its scores.
    """

    rows_per_second: float
    start: float

    def seconds(self, rows: float, runs: int) -> float:
        """Return the estimated time of trainings one after the other.

        Args:
            rows: the number of rows that all trainings read.
            runs: the number of trainings.
        """
        return rows / self.rows_per_second + runs * self.start


def time_pairs(run: Run, loading: float) -> PairTimes:
    """Time a few steps of a run.

    Args:
        run: the run of all tasks.
        loading: the seconds in which the data of the run were loaded.
    """
    speed = _rows_per_second(run)
    scored = sum(data.num_windows for data in run.splits.get("validation", {}).values())
    return PairTimes(speed, _START_SECONDS + loading + scored / (2.0 * speed))


def share_that_fits(times: PairTimes, rows: float, runs: int, seconds: float, least: float) -> float:
    """Return the share of the recipe's training that each short training can have, at most 1.

    Args:
        times: the times.
        rows: the rows that all trainings would read with a share of 1.
        runs: the number of trainings.
        seconds: the time that is left.
        least: the smallest share.

    Raises:
        CommandError: if the smallest share does not fit.
    """
    share = (_RESERVE * seconds - runs * times.start) * times.rows_per_second / rows
    if share < least:
        raise too_small(times.seconds(least * rows, runs), f"{runs} trainings of {least:.1%} of the recipe's length")
    return min(1.0, share)


def _rows_per_second(run: Run) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return rows_per_second(short_run(run, FEWEST_STEPS, folder))


def _seconds_per_step(run: Run) -> float:
    arguments = training_arguments(run.recipe)
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return rows / _rows_per_second(run)


def _seconds_per_measurement(run: Run) -> float:
    """Return the time of the second of two measurements."""
    with tempfile.TemporaryDirectory() as folder:
        short = short_run(run, FEWEST_STEPS, folder)
        arguments = training_arguments(short.recipe)
        trainer = build_trainer(short, build_model(short), arguments)
        optimizer = trainer.create_optimizer()
        callback = AffinityCallback(short, 1, rows_per_probe(arguments), arguments.seed)
        callback.measure(trainer.model, optimizer, 0)
        started = time.perf_counter()
        callback.measure(trainer.model, optimizer, 0)
        return time.perf_counter() - started
