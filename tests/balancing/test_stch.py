from __future__ import annotations

import pytest
import torch
from torchjd.scalarization import STCH
from toy_splits import TASKS
from weighting_references import by_torchjd
from weighting_steps import NOTHING, numbers_of, step_of

from mtl_nlp.balancing.stch import SmoothTchebycheff


@pytest.mark.parametrize("mu", [0.05, 1.0])
def test_weights_are_the_gradient_of_torchjd_with_the_sum_of_a_plain_sum(mu):
    losses = {"pos": 0.3, "ner": 2.0, "score": 1.5}
    found = numbers_of(SmoothTchebycheff(TASKS, mu).weights(step_of(losses)))
    expected = torch.tensor(by_torchjd(STCH(mu), list(losses.values())))
    assert list(found.values()) == pytest.approx((3.0 * expected / expected.sum()).tolist(), rel=1e-6)
    assert sum(found.values()) == pytest.approx(3.0)


def test_single_task_in_a_step_has_the_weight_1_and_no_task_has_none():
    weighting = SmoothTchebycheff(TASKS)
    assert numbers_of(weighting.weights(step_of({"ner": 7.0}))) == {"ner": 1.0}
    assert weighting.weights(NOTHING) == {}
    assert not weighting.state_dict()


def test_large_losses_do_not_overflow():
    found = numbers_of(SmoothTchebycheff(TASKS, 0.01).weights(step_of({"pos": 1e6, "score": 1.0})))
    assert found == pytest.approx({"pos": 2.0, "score": 0.0})
