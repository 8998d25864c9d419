from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.training.log import TrainingLog


@pytest.fixture
def log() -> TrainingLog:
    return TrainingLog(["pos", "topic"], torch.device("cpu"))


def itself(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum over one process."""
    return tensor


def add_step(
    log: TrainingLog, units: dict[str, int], *micro_batches: Sequence[float], sub_words: int = 10, positions: int = 10
) -> None:
    log.add_step(StepCounts(4, dict.fromkeys(units, 1), units), sub_words, positions)
    for losses in micro_batches:
        log.add_losses([torch.tensor(value) for value in losses])


def test_task_loss_is_the_mean_over_the_units_of_all_steps(log):
    add_step(log, {"pos": 3, "topic": 1}, [1.0, 0.5], [2.0, 0.0])
    add_step(log, {"pos": 7, "topic": 0}, [5.0, 0.0])
    logs = log.take(itself)
    assert logs["loss_pos"] == pytest.approx(8.0 / 10)
    assert logs["loss_topic"] == pytest.approx(0.5)


def test_losses_are_summed_over_processes_and_counts_are_global(log):
    add_step(log, {"pos": 10, "topic": 4}, [1.0, 2.0])
    logs = log.take(lambda sums: sums + torch.tensor([4.0, 6.0, 0.0, 0.0]))
    assert logs["loss_pos"] == pytest.approx(0.5)
    assert logs["loss_topic"] == pytest.approx(2.0)


def test_task_without_units_has_no_loss(log):
    add_step(log, {"pos": 2, "topic": 0}, [1.0, 0.0])
    assert log.take(itself).keys() == {"loss_pos", "padding"}


def test_padding_is_the_share_of_empty_positions(log):
    add_step(log, {"pos": 1}, [1.0, 0.0], sub_words=30, positions=40)
    add_step(log, {"pos": 1}, [1.0, 0.0], sub_words=30, positions=60)
    assert log.take(itself)["padding"] == pytest.approx(0.4)


def test_logged_pull_is_the_mean_over_steps_and_not_summed_over_processes(log):
    for pull in (1.0, 2.0, 6.0):
        add_step(log, {"pos": 1}, [1.0, 0.0], [1.0, 0.0])
        log.add_pull(torch.tensor(pull))
    assert log.take(lambda sums: 2 * sums)["pull"] == pytest.approx(3.0)


def test_pull_of_zero_is_logged_and_missing_pull_is_not(log):
    add_step(log, {"pos": 1}, [1.0, 0.0])
    log.add_pull(torch.tensor(0.0))
    assert log.take(itself)["pull"] == 0.0
    add_step(log, {"pos": 1}, [1.0, 0.0])
    assert "pull" not in log.take(itself)


def test_log_is_reset_after_reading(log):
    add_step(log, {"pos": 1, "topic": 1}, [9.0, 9.0], sub_words=1)
    log.add_pull(torch.tensor(9.0))
    log.take(itself)
    add_step(log, {"pos": 2, "topic": 0}, [1.0, 0.0])
    log.add_pull(torch.tensor(0.5))
    assert log.take(itself) == pytest.approx({"loss_pos": 0.5, "pull": 0.5, "padding": 0.0})


def test_log_keeps_no_graph(log):
    weight = torch.ones(2, requires_grad=True)
    losses = [weight[0] * 2, weight[1] * 3]
    add_step(log, {"pos": 1, "topic": 1})
    log.add_losses(losses)
    log.add_pull(weight.sum())
    (sum(losses) + weight.sum()).backward()
    sums = []
    assert log.take(lambda tensor: sums.append(tensor) or tensor)["pull"] == 2.0
    assert not sums[0].requires_grad


def test_units_whose_loss_was_left_out_do_not_count_and_steps_with_skips_do(log):
    for _ in range(2):
        add_step(log, {"pos": 4, "topic": 2}, [1.0, 0.0])
        log.add_left_out({"topic": 2.0, "pos": 1.0})
        log.add_skips(["topic"])
    logs = log.take(itself)
    assert logs["loss_pos"] == pytest.approx(2.0 / 6)
    assert "loss_topic" not in logs
    assert logs["skipped_topic"] == 2
    add_step(log, {"pos": 4, "topic": 2}, [1.0, 1.0])
    assert log.take(itself).keys() == {"loss_pos", "loss_topic", "padding"}


def test_losses_so_far_are_those_of_the_own_rows(log):
    log.add_step(StepCounts(8, {"pos": 8, "topic": 2}, {"pos": 10, "topic": 4}), 10, 10, {"pos": 4, "topic": 0})
    log.add_losses([torch.tensor(1.0), torch.tensor(0.0)])
    assert log.so_far() == {"pos": pytest.approx(0.25)}
    add_step(log, {"pos": 4}, [1.0, 0.0])  # one process
    assert log.so_far() == {"pos": pytest.approx(0.25)}
    log.take(itself)
    assert log.so_far() == {}
