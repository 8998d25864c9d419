from __future__ import annotations

import pytest
import torch
from toy_splits import TASKS
from weighting_references import GradNormReference
from weighting_steps import NOTHING, numbers_of, step_of

from mtl_nlp.balancing.gradnorm import GradNorm

NORMS = {"pos": 0.5, "ner": 2.0, "topic": 1.0, "score": 0.1}


@torch.no_grad()
def test_weights_equal_the_formula_of_the_paper_over_several_steps():
    ours, reference = GradNorm(TASKS), GradNormReference(TASKS)
    for number in range(20):
        losses = {task: (1.0 + n) * 0.97 ** (n * number) for n, task in enumerate(TASKS)}
        step = step_of(losses, gradient_norms=NORMS)
        assert numbers_of(ours.weights(step)) == pytest.approx(reference.weights(losses, 0, number), rel=1e-5)
        ours.after_step(step)
        reference.after(losses, {}, NORMS, {}, 0)


@torch.no_grad()
def test_without_alpha_the_weighted_norms_become_equal():
    weighting = GradNorm(TASKS, alpha=0.0, learning_rate=0.01)
    for _ in range(2000):
        weighting.after_step(step_of(dict.fromkeys(TASKS, 1.0), gradient_norms=NORMS))
    scaled = [weight * NORMS[task] for task, weight in numbers_of(weighting.weights(NOTHING)).items()]
    assert scaled == pytest.approx([sum(scaled) / 4] * 4, rel=0.2)
    assert weighting.values.sum().item() == pytest.approx(4.0)


@torch.no_grad()
def test_tasks_without_labels_keep_their_weights_and_first_losses():
    weighting = GradNorm(TASKS)
    weighting.after_step(step_of({"pos": 1.0, "ner": 2.0}, gradient_norms={"pos": 0.5, "ner": 2.0}))
    assert weighting.values[2:].tolist() == [1.0, 1.0]
    assert weighting.values.sum().item() == pytest.approx(4.0)
    assert weighting.first_losses.tolist() == [1.0, 2.0, 0.0, 0.0]
    before = weighting.values.clone()
    weighting.after_step(step_of({"topic": 3.0}, gradient_norms={"topic": 100.0}))
    weighting.after_step(NOTHING)
    torch.testing.assert_close(weighting.values, before)
    assert weighting.first_losses.tolist() == [1.0, 2.0, 3.0, 0.0]


@torch.no_grad()
def test_weights_stay_positive_and_finite_for_extreme_norms_and_losses_of_zero():
    weighting = GradNorm(TASKS)
    for losses in (dict.fromkeys(TASKS, 0.0), {"pos": 1e9, "ner": 1.0, "topic": 0.0, "score": 1e-9}) * 3:
        weighting.after_step(step_of(losses, gradient_norms={"pos": 1e9, "ner": 0.0, "topic": 1.0, "score": 1e-9}))
        assert weighting.values.min() > 0.0
        assert weighting.values.sum().item() == pytest.approx(4.0)


@pytest.mark.parametrize("parameter", ["alpha", "learning_rate"])
def test_parameters_out_of_range_are_refused(parameter):
    with pytest.raises(ValueError, match=f"`{parameter}` should be finite"):
        GradNorm(TASKS, **{parameter: -1.0})
