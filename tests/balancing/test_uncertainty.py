from __future__ import annotations

import math

import pytest
import torch
from torchjd.scalarization import UW
from toy_splits import TASKS
from weighting_steps import NOTHING, numbers_of, step_of

from mtl_nlp.balancing.uncertainty import Uncertainty

LOSSES = {"pos": 0.3, "ner": 2.0, "topic": 0.7, "score": 5.0}


def trained(shares: dict[str, float], steps: int = 3000) -> Uncertainty:
    """Train the parameters alone, on constant losses."""
    weighting = Uncertainty(TASKS)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.01)
    step = step_of(LOSSES, shares=shares)
    for _ in range(steps):
        optimizer.zero_grad()
        weights = weighting.weights(step)
        loss = sum(shares.get(task, 0.0) * weights[task] * step.losses[task] for task in TASKS)
        (loss + weighting.penalty(step)).backward()
        optimizer.step()
    return weighting


def test_optimum_of_each_task_does_not_depend_on_its_share_of_the_rows():
    weighting = trained({"pos": 1.0, "ner": 0.5, "topic": 0.01, "score": 0.2})
    found = [value.item() for value in weighting.log_variances]
    assert found == pytest.approx([math.log(0.6), math.log(4.0), math.log(1.4), math.log(5.0)], abs=1e-3)


def test_task_without_labels_is_not_moved():
    weighting = trained({"pos": 0.5, "score": 0.5}, steps=10)
    assert [value.item() != 0.0 for value in weighting.log_variances] == [True, False, False, True]
    assert all(value.grad is None for value in list(weighting.log_variances)[1:3])
    weights = weighting.weights(step_of({"pos": 1.0}))
    assert [weights[task].requires_grad for task in TASKS] == [True, False, False, False]
    assert weighting.penalty(NOTHING) == 0.0


def test_regressions_have_the_loss_of_torchjd_and_classifications_twice_its_weight():
    ours, theirs = Uncertainty(TASKS), UW(4)
    values = torch.tensor([0.2, -0.4, 1.0, 0.6])
    theirs.log_var.data.copy_(values)
    for parameter, value in zip(ours.log_variances, values, strict=True):
        parameter.data.copy_(value)
    losses = torch.tensor(list(LOSSES.values()), requires_grad=True)
    theirs(losses).backward()
    found = numbers_of(ours.weights(step_of(LOSSES)))
    assert list(found.values()) == pytest.approx((losses.grad * torch.tensor([2.0, 2.0, 2.0, 1.0])).tolist(), rel=1e-6)
    assert ours.penalty(step_of(LOSSES)).item() == pytest.approx(0.5 * values.sum().item(), rel=1e-6)


def test_learning_rate_is_positive():
    assert Uncertainty(TASKS, learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ValueError, match=r"`learning_rate` should be finite and above 0\. Found 0"):
        Uncertainty(TASKS, learning_rate=0.0)
