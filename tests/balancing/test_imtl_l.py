from __future__ import annotations

import pytest
import torch
from torchjd.scalarization import IMTLL
from toy_splits import TASKS
from weighting_steps import NOTHING, step_of

from mtl_nlp.balancing.imtl_l import ImtlL

LOSSES = {"pos": 0.3, "ner": 2.0, "topic": 0.7, "score": 5.0}


def test_weights_and_parameters_equal_torchjd_over_several_steps():
    ours, theirs = ImtlL(TASKS), IMTLL(4)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (ours, theirs)]
    for number in range(5):
        step = step_of({task: loss + 0.1 * number for task, loss in LOSSES.items()})
        losses = torch.stack(list(step.losses.values()))
        weights = torch.stack(list(ours.weights(step).values()))
        (weights @ losses + ours.penalty(step)).backward()
        theirs(losses).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        found = torch.stack([term.log_scale for term in ours.terms])
        torch.testing.assert_close(found, theirs.log_scale, rtol=1e-6, atol=1e-6)


def test_share_multiplies_both_parts_of_a_term_and_an_absent_task_has_none():
    weighting = ImtlL(TASKS)
    weighting.terms[0].log_scale.data.fill_(0.5)
    step = step_of({"pos": 2.0}, shares={"pos": 0.25})
    assert weighting.penalty(step).item() == pytest.approx(-0.25 * 0.5)
    assert [weight.requires_grad for weight in weighting.weights(step).values()] == [True, False, False, False]
    assert weighting.penalty(NOTHING) == 0.0
