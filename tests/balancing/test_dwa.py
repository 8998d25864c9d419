from __future__ import annotations

import pytest
import torch
from torchjd.scalarization import DWA
from toy_splits import TASKS
from weighting_references import by_torchjd
from weighting_steps import numbers_of, step_of

from mtl_nlp.balancing.dwa import DynamicWeightAverage


def losses_at(epoch: int, number: int) -> dict[str, float]:
    return {task: (1.0 + n) / (1 + epoch) ** (0.3 * n) + 0.1 * number for n, task in enumerate(TASKS)}


@torch.no_grad()
def test_weights_equal_torchjd_over_five_epochs():
    ours, theirs = DynamicWeightAverage(TASKS, temperature=1.5), DWA(temperature=1.5)
    for epoch in range(5):
        for number in range(3):
            step = step_of(losses_at(epoch, number), epoch=epoch)
            with torch.enable_grad():
                expected = by_torchjd(theirs, list(losses_at(epoch, number).values()))
            assert list(numbers_of(ours.weights(step)).values()) == pytest.approx(expected, rel=1e-6)
            ours.after_step(step)
        theirs.step()
    assert expected != pytest.approx([1.0] * 4, abs=0.01)


@torch.no_grad()
def test_mean_of_a_task_is_over_the_steps_with_its_labels():
    weighting = DynamicWeightAverage(TASKS, temperature=1.0)
    for epoch, losses in enumerate([{"pos": 2.0, "ner": 4.0}, {"pos": 1.0, "ner": 4.0}]):
        weighting.after_step(step_of(losses, epoch=epoch))
        weighting.after_step(step_of({"ner": 4.0}, epoch=epoch))
    found = numbers_of(weighting.weights(step_of({}, epoch=2)))
    ratios = torch.tensor([0.5, 1.0, 1.0, 1.0])  # topic and score have had no labels
    assert list(found.values()) == pytest.approx((4.0 * torch.softmax(ratios, 0)).tolist())


@torch.no_grad()
def test_task_without_labels_in_an_epoch_keeps_its_mean():
    weighting = DynamicWeightAverage(TASKS)
    for epoch in range(2):
        weighting.after_step(step_of({"pos": 2.0 - epoch, "ner": 1.0}, epoch=epoch))
    weighting.after_step(step_of({"ner": 1.0}, epoch=2))
    assert set(numbers_of(weighting.weights(step_of({}, epoch=3))).values()) == {1.0}
    assert weighting.means.isfinite().all()


def test_only_after_step_changes_the_state():
    weighting = DynamicWeightAverage(TASKS)
    before = {key: value.clone() for key, value in weighting.state_dict().items()}
    weighting.weights(step_of({"pos": 1.0}, epoch=3))
    assert all(torch.equal(value, before[key]) for key, value in weighting.state_dict().items())


def test_temperature_is_positive():
    with pytest.raises(ValueError, match="`temperature` should be finite and above 0"):
        DynamicWeightAverage(TASKS, temperature=-1.0)
