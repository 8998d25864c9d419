from __future__ import annotations

import pytest
import torch
from toy_splits import TASKS
from weighting_steps import numbers_of, step_of

from mtl_nlp.balancing.equal_start import EqualStart


@torch.no_grad()
def run(weighting: EqualStart, *steps: dict[str, float]) -> list[dict[str, float]]:
    found = []
    for number, losses in enumerate(steps):
        reads = "losses" in weighting.needs_at(number)
        found.append(numbers_of(weighting.weights(step_of(losses if reads else {}, number=number))))
        weighting.after_step(step_of(losses, number=number))
    return found


def test_first_step_has_losses_of_1_and_later_weights_are_the_inverse_mean_of_the_start():
    steps = [{"pos": 2.0, "score": 1e4}, {"pos": 4.0, "score": 1e4}, {"pos": 100.0, "score": 1.0}]
    found = run(EqualStart(TASKS, steps=2), *steps, *steps)
    assert found[0] == pytest.approx({"pos": 0.5, "ner": 1.0, "topic": 1.0, "score": 1e-4})
    assert [weights["pos"] for weights in found[1:]] == pytest.approx([1 / 3] * 5)
    assert [weights["score"] for weights in found] == pytest.approx([1e-4] * 6)


def test_task_that_comes_later_starts_with_the_weight_1_and_keeps_its_first_loss():
    found = run(EqualStart(TASKS, steps=1), {"pos": 1.0}, {"topic": 4.0}, {"topic": 9.0}, {})
    assert [weights["topic"] for weights in found] == [1.0, 1.0, 0.25, 0.25]


def test_losses_are_read_only_in_the_first_steps():
    weighting = EqualStart(TASKS, steps=3)
    assert [bool(weighting.needs_at(number)) for number in range(5)] == [True, True, True, False, False]


def test_loss_of_zero_gives_a_finite_weight():
    (weights,) = run(EqualStart(TASKS), {"pos": 0.0})
    assert 1.0 < weights["pos"] < float("inf")


def test_at_least_one_step_is_needed():
    with pytest.raises(ValueError, match=r"`steps` should be at least 1\. Found 0"):
        EqualStart(TASKS, steps=0)
