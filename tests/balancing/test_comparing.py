from __future__ import annotations

import pytest
import torch
from toy_splits import TASKS
from weighting_steps import step_of

from mtl_nlp.balancing.comparing import ComparingWeighting, MovingWeighting, chosen, put


class Comparing(ComparingWeighting):
    def weights(self, step):
        return {}


class OfStep(Comparing):
    needs = frozenset({"losses"})


@pytest.mark.parametrize("tasks", [[], ["pos"]])
def test_fewer_than_two_tasks_are_refused(tasks):
    with pytest.raises(
        ValueError, match=rf"Comparing compares tasks, and needs two\. Found {'pos' if tasks else 'none'}"
    ):
        Comparing({task: TASKS[task] for task in tasks})


def test_only_methods_that_measure_the_step_compare_within_steps():
    assert not Comparing.compares_within_steps()
    assert OfStep.compares_within_steps()


def test_tasks_of_a_step_keep_the_order_of_all_tasks():
    assert Comparing(TASKS).numbers_of(step_of({"score": 1.0, "ner": 2.0})) == [1, 3]


def test_put_replaces_what_chosen_returns_and_nothing_else():
    values = torch.arange(4.0)
    put(values, [3, 1], 10.0 * chosen(values, [3, 1]))
    assert values.tolist() == [0.0, 10.0, 2.0, 30.0]


class Moving(MovingWeighting):
    def weights(self, step):
        return {}


def test_a_moving_weighting_has_a_positive_rate_and_stacks_measurements():
    step = step_of({"score": 1.0, "ner": 2.0})
    moving = Moving(TASKS, 0.5)
    assert moving.rate == 0.5
    assert moving.stacked(step.losses, [3, 1]).tolist() == [step.losses[moving.tasks[n]].item() for n in (3, 1)]
    with pytest.raises(ValueError, match="`learning_rate` should be finite and above 0"):
        Moving(TASKS, 0.0)
