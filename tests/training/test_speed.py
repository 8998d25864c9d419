"""The clock of a training, and the used share of a device."""

from __future__ import annotations

import time

import pytest
import torch
from trainers import build_model

from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.training.counting import Work
from mtl_nlp.training.speed import Speed, Utilization, matrix_rate

WORK = Work(StepCounts(2, {}, {}), 100, 6000, 120, 2, ())


def test_the_clock_stands_still_in_evaluations_and_after_a_log():
    speed = Speed()
    assert speed.take() == {}
    assert speed.mean is None
    for _ in range(2):
        speed.begin_step()
        time.sleep(0.02)
        speed.add(WORK)
        with speed.paused():
            time.sleep(0.5)
    found = speed.take()["tokens_per_second"]
    assert 200 / 0.4 < found <= 200 / 0.04
    time.sleep(0.2)
    assert speed.mean == found


def test_utilization_is_the_share_of_the_measured_rate():
    rate = matrix_rate(torch.device("cpu"), torch.float32, size=32, seconds=0.001)
    assert rate > 1e6
    model = build_model()
    utilization = Utilization(model, torch.device("cpu"), torch.float32, processes=2, rate=rate)
    operations = 6 * model.num_parameters(exclude_embeddings=True) * 100 + 12 * 2 * 32 * 6000
    assert utilization.share(100, 6000, 0.5) == pytest.approx(operations / 0.5 / (2 * rate))
    speed = Speed(utilization)
    speed.begin_step()
    speed.add(WORK)
    assert speed.take().keys() == {"tokens_per_second", "mfu"}


def test_logs_and_the_description_of_a_training_have_its_speed(trainer_of, disjoint):
    trainer = trainer_of(disjoint, max_steps=2, logging_steps=1)
    trainer.train()
    history = trainer.state.log_history
    assert all(entry["tokens_per_second"] > 0 for entry in history if "loss" in entry)
    assert trainer.describe_training()["tokens_per_second"] == history[-1]["train_tokens_per_second"] > 0
