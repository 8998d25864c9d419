from __future__ import annotations

import time

import pytest
from transformers import TrainerControl
from transformers.trainer_callback import TrainerState

from mtl_nlp.searching.watching import TooLongError, TrialWatch, budget_text, minutes_text


def test_the_first_evaluation_after_each_quarter_is_reported_except_the_last():
    reported: list[tuple[int, float]] = []
    watch = TrialWatch(lambda quarter, metrics: reported.append((quarter, metrics["a"])), None, skips_last=True)
    for step in (1, 3, 4, 5, 6, 10):
        watch.on_evaluate(None, TrainerState(global_step=step, max_steps=10), TrainerControl(), {"a": float(step)})
    assert reported == [(1, 3.0), (2, 5.0)]


def test_the_evaluation_after_the_last_step_is_left_out():
    for skips, expected in ((True, False), (False, True)):
        control = TrainerControl(should_evaluate=True)
        TrialWatch(None, None, skips_last=skips).on_step_end(None, TrainerState(global_step=4, max_steps=4), control)
        assert control.should_evaluate is expected


def test_a_trial_that_is_too_long_for_the_budget_ends_with_an_estimate():
    watch = TrialWatch(None, 10.0, skips_last=True)
    watch.on_step_end(None, TrainerState(global_step=1, max_steps=100_000), TrainerControl())
    time.sleep(0.02)
    with pytest.raises(TooLongError, match=r"--budget: one trial takes about .*, and the time for trials is 10 s"):
        watch.on_step_end(None, TrainerState(global_step=5, max_steps=100_000), TrainerControl())


@pytest.mark.parametrize(
    ("seconds", "text", "budget"),
    [(0.5, "0.5 s", "1s"), (50, "50 s", "50s"), (610, "10 min", "11m"), (9000, "2.5 h", "3h")],
)
def test_times_are_texts(seconds, text, budget):
    assert (minutes_text(seconds), budget_text(seconds)) == (text, budget)
