from __future__ import annotations

import pytest
import torch
from torchjd.scalarization import FAMO
from toy_splits import TASKS
from weighting_references import by_torchjd
from weighting_steps import NOTHING, numbers_of, step_of

from mtl_nlp.balancing.famo import Famo


@torch.no_grad()
def test_weights_and_updates_equal_torchjd_over_several_steps():
    ours, theirs = Famo(TASKS), FAMO(4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        before = (0.5 + torch.rand(4, generator=generator)).tolist()
        after = [
            loss * float(f) for loss, f in zip(before, 0.8 + 0.3 * torch.rand(4, generator=generator), strict=True)
        ]
        step = step_of(dict(zip(TASKS, before, strict=True)), losses_after=dict(zip(TASKS, after, strict=True)))
        with torch.enable_grad():
            expected = by_torchjd(theirs, before)
            theirs.update(torch.tensor(after))
        assert list(numbers_of(ours.weights(step)).values()) == pytest.approx([4.0 * w for w in expected], rel=1e-5)
        ours.after_step(step)
        torch.testing.assert_close(ours.logits, next(theirs.parameters()).detach(), rtol=1e-5, atol=1e-6)
    assert ours.logits.abs().max() > 0.05


@torch.no_grad()
def test_task_that_falls_faster_loses_weight():
    weighting, losses = Famo(TASKS), {"pos": 1.0, "ner": 1.0}
    for _ in range(10):
        weighting.after_step(step_of(losses, losses_after={"pos": 0.5, "ner": 0.9}))
    found = numbers_of(weighting.weights(step_of(losses)))
    assert found["pos"] < 0.9 < 1.1 < found["ner"]
    assert sum(found.values()) == pytest.approx(2.0)


@torch.no_grad()
def test_tasks_without_labels_are_not_updated():
    weighting = Famo(TASKS)
    weighting.after_step(step_of({"pos": 1.0, "ner": 1.0}, losses_after={"pos": 0.5, "ner": 0.9}))
    before = {key: value.clone() for key, value in weighting.state_dict().items()}
    assert [bool(value) for value in before["logits"]] == [True, True, False, False]
    weighting.after_step(step_of({"topic": 1.0}, losses_after={"topic": 0.5}))
    weighting.after_step(NOTHING)
    assert all(torch.equal(value, before[key]) for key, value in weighting.state_dict().items())
    assert weighting.weights(NOTHING) == {}


@pytest.mark.parametrize("parameter", ["learning_rate", "weight_decay"])
def test_parameters_out_of_range_are_refused(parameter):
    with pytest.raises(ValueError, match=f"`{parameter}` should be finite"):
        Famo(TASKS, **{parameter: -1.0})
