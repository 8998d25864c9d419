from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtl_nlp import Recipe, Regression
from mtl_nlp.balancing.gradients import shared_parameters
from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.modeling_multitask import MultitaskOutput
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare
from mtl_nlp.transfer.affinity_steps import (
    AffinityCallback,
    ProbeRows,
    check_measurable,
    look_ahead,
    mean_losses,
    measure_steps,
    step_rates,
    task_gradients,
)

TASKS = ["a", "b"]


class TwoParameters(nn.Module):
    """A model with two shared parameters: a predicts w0, b predicts w0 + 2 · w1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.weights = nn.Parameter(torch.tensor([1.0, 0.5]))
        self.adapter_names: list[str] = []
        self.tasks = {name: Regression(name=name) for name in TASKS}

    def forward(self, labels: dict[str, torch.Tensor], **_: Any) -> MultitaskOutput:
        first, second = self.encoder.weights
        answers = {"a": first, "b": first + 2 * second}
        return MultitaskOutput(loss_sums={task: ((answers[task] - labels[task]) ** 2).sum() for task in TASKS})


def batch(a: list[float], b: list[float]) -> dict[str, Any]:
    labels = {"a": torch.tensor(a), "b": torch.tensor(b)}
    return {
        "input_ids": torch.zeros(3, 1, dtype=torch.int64),
        "rows": {task: torch.arange(len(values)) for task, values in labels.items()},
        "labels": labels,
    }


def test_the_affinity_is_that_of_a_hand_computation():
    model = TwoParameters()
    # The mean losses (w0 − 3)² and (w0 + 2 w1 − 4)² have the gradients (−4, 0) and (−4, −8) at w = (1, 0.5).
    gradients = task_gradients(model, [batch([3.0, 3.0], [4.0])], TASKS)
    assert gradients.tolist() == [[-4.0, 0.0], [-4.0, -8.0]]
    others = [batch([2.0], [0.0]), batch([2.0], [0.0, 0.0])]  # the losses before are 1 and 4
    assert mean_losses(model, others, TASKS).tolist() == [1.0, 4.0]
    found = look_ahead(model, gradients, others, TASKS, [0.1])
    # A step on a leads to w = (1.4, 0.5) with the losses 0.36 and 5.76; a step on b to (1.4, 1.3): 0.36 and 16.
    assert found == pytest.approx(np.array([[0.64, -0.44], [0.64, -3.0]]), abs=1e-6)
    assert model.encoder.weights.tolist() == [1.0, 0.5]


def test_a_task_without_rows_has_no_affinity():
    model = TwoParameters()
    gradients = task_gradients(model, [batch([3.0], [])], TASKS)
    found = look_ahead(model, gradients, [batch([], [0.0])], TASKS, [0.1])
    assert np.isnan(found).tolist() == [[True, False], [True, True]]


def test_a_step_has_the_rate_before_the_schedule():
    weights = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.AdamW([weights], lr=0.1)
    assert step_rates(optimizer, [weights]) == [0.1]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert step_rates(optimizer, [weights]) == [0.1]


def test_every_task_has_labels_in_a_measurement(run):
    probes = ProbeRows(run, 6, seed=0)
    drawn = [probes.draw() for _ in range(3)]
    for (batch,) in drawn:
        assert all(len(batch["rows"][task]) for task in run.recipe.tasks)
        assert 2 <= len(batch["input_ids"]) <= 6
    texts = [batch["input_ids"].tolist() for (batch,) in drawn]
    assert texts[0] != texts[1]


def test_measuring_does_not_change_the_training(run):
    weights = []
    for measures in (False, True):
        model = build_model(run)
        arguments = run.training_arguments()
        trainer = build_trainer(run, model, arguments)
        if measures:
            callback = AffinityCallback(run, 2, 4, seed=0)
            trainer.add_callback(callback)
        trainer.train()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    assert len(callback.found) == 2
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_short_training_measures_affinities_and_symmetric_cosines(run):
    found = measure_steps(run, 6, 1)
    count = len(run.recipe.tasks)
    assert found.affinity.shape == (6, count, count)
    assert np.isfinite(found.affinity).all()
    own = found.affinity.mean(axis=0).diagonal()
    assert (own > 0).all(), own
    for each in found.conflict.measurements:
        cosines = np.array(each["cosine"])
        assert cosines == pytest.approx(cosines.T)
        assert cosines.diagonal() == pytest.approx(np.ones(count))


def test_tasks_that_share_nothing_are_refused(quick_recipe):
    run = prepare(Recipe.from_dict({**quick_recipe, "freeze": ["encoder"]}))
    model = build_model(run)
    assert shared_parameters(model) == []
    with pytest.raises(RecipeError, match=r"^affinity: The tasks share no trained parameters"):
        check_measurable(run, model)
