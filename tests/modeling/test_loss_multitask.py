"""The joint loss, the counts of a step, and the zero loss."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from mtl_nlp import MultiLabelClassification, TextClassification, TokenClassification
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step, joint_loss, zero_loss

NONE = torch.tensor([], dtype=torch.long)
TASKS = {
    "pos": TokenClassification(name="pos", labels=["A", "B", "C"]),
    "topic": TextClassification(name="topic", labels=["x", "y"]),
    "tags": MultiLabelClassification(name="tags", labels=["u", "v"]),
}


def counts_of(rows: int, **tasks: tuple[int, int]) -> StepCounts:
    return StepCounts(rows, {name: n for name, (n, _) in tasks.items()}, {name: u for name, (_, u) in tasks.items()})


def losses_of(**sums: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in sums.items()}


@pytest.mark.parametrize(("scale", "of_pos", "of_topic"), [("rows", 0.2, 0.8), ("per_task", 1.0, 1.0)])
def test_joint_loss_and_gradients_follow_the_formula(scale, of_pos, of_topic):
    counts, sums = counts_of(10, pos=(2, 25), topic=(8, 8)), losses_of(pos=5.0, topic=4.0)
    loss = joint_loss(sums, counts, {"topic": 3.0}, scale)
    assert loss.item() == pytest.approx(of_pos * 5.0 / 25 + 3.0 * of_topic * 4.0 / 8)
    loss.backward()
    assert sums["pos"].grad.item() == pytest.approx(of_pos / 25)
    assert sums["topic"].grad.item() == pytest.approx(3.0 * of_topic / 8)


@pytest.mark.parametrize("scale", ["rows", "per_task"])
def test_task_without_rows_adds_zero_loss_with_zero_gradients(scale):
    counts, sums = counts_of(4, pos=(4, 9), idle=(0, 0)), losses_of(pos=3.0, idle=0.0)
    alone = joint_loss({"pos": sums["pos"]}, counts, None, scale)
    loss = joint_loss(sums, counts, {"idle": 7.0}, scale)
    assert loss.item() == alone.item()
    loss.backward()
    assert torch.isfinite(sums["idle"].grad)


@pytest.mark.parametrize("scale", ["rows", "per_task"])
def test_step_without_rows_or_labels_has_a_zero_loss(scale):
    assert joint_loss(losses_of(pos=0.0), counts_of(0, pos=(0, 0)), None, scale).item() == 0.0
    # Rows whose words are all cut off have no units.
    assert joint_loss(losses_of(pos=0.0), counts_of(3, pos=(3, 0)), None, scale).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_joint_loss_keeps_the_precision_of_the_sums(dtype):
    assert joint_loss({"pos": torch.ones((), dtype=dtype)}, counts_of(1, pos=(1, 3))).dtype == dtype


def test_counts_add_up_even_if_one_part_lacks_a_task():
    one, other = counts_of(3, pos=(2, 7)), counts_of(4, pos=(1, 2), topic=(4, 4))
    assert one + other == other + one == counts_of(7, pos=(3, 9), topic=(4, 4))
    assert StepCounts(0, {}, {}) + one == one


def test_step_counts_rows_and_trainable_labels():
    batches = [
        {
            "input_ids": torch.zeros(3, 4),
            "rows": {"pos": torch.tensor([0, 2]), "topic": NONE, "tags": torch.tensor([1])},
            "labels": {
                "pos": torch.tensor([[-100, 1, 0, -100], [-100, 2, -100, -100]]),
                "topic": torch.tensor([], dtype=torch.long),
                "tags": torch.tensor([[0.0, 1.0]]),
            },
        },
        {
            "input_ids": torch.zeros(2, 9),
            "rows": {"pos": NONE, "topic": torch.tensor([0, 1]), "tags": NONE},
            "labels": {"pos": torch.zeros(0, 9), "topic": torch.tensor([1, 0]), "tags": torch.zeros(0, 2)},
        },
    ]
    counts = count_step(batches, TASKS)
    assert counts == counts_of(5, pos=(2, 3), topic=(2, 2), tags=(1, 2))  # each label of `tags` is a unit
    assert count_step([], {"pos": TASKS["pos"]}) == counts_of(0, pos=(0, 0))


def test_step_counts_the_units_of_soft_targets():
    tasks = [
        TokenClassification(name="pos", labels=["a", "b"]),
        TextClassification(name="topic", labels=["a", "b"]),
        MultiLabelClassification(name="tags", labels=["a", "b"]),
    ]
    every = torch.tensor([0, 1])
    batch = {
        "input_ids": torch.zeros(2, 3),
        "rows": {"pos": every, "topic": every, "tags": every},
        "labels": {
            "pos": torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.1, 0.9], [1.0, 0.0]]]),
            "topic": torch.tensor([[0.3, 0.7], [1.0, 0.0]]),
            "tags": torch.tensor([[0.3, 0.7], [1.0, 0.0]]),
        },
    }
    counts = count_step([batch], {task.name: task for task in tasks})
    assert counts == counts_of(2, pos=(2, 3), topic=(2, 2), tags=(2, 4))


@pytest.mark.parametrize("units", [0.25, 3.5])
def test_joint_loss_divides_by_fractional_units(units):
    assert joint_loss(losses_of(pos=2.0), counts_of(1, pos=(1, units))).item() == pytest.approx(2.0 / units)


def test_zero_loss_gives_every_input_a_gradient_of_zero():
    shapes = [((2, 3), torch.float32), ((4,), torch.bfloat16), ((), torch.float64)]
    inputs = [torch.ones(shape, dtype=dtype, requires_grad=True) for shape, dtype in shapes]
    zero = zero_loss(*inputs)
    assert zero.shape == () and zero.item() == 0.0
    zero.backward()
    for each, (shape, dtype) in zip(inputs, shapes, strict=True):
        assert each.grad.shape == shape and each.grad.dtype == dtype and not each.grad.any()


def test_zero_loss_gives_zero_gradients_for_infinite_inputs():
    weight = torch.full((3,), float("nan"), requires_grad=True)
    (zero_loss(weight) + (weight * 0.0).nan_to_num().sum()).backward()
    assert torch.equal(weight.grad, torch.zeros(3))


def test_zero_loss_keeps_no_input_until_the_backward_pass():
    weight = torch.ones(3, requires_grad=True)
    computed = weight * 2
    kept = weakref.ref(computed)
    zero = zero_loss(computed)
    del computed
    gc.collect()
    assert kept() is None
    zero.backward()
    assert not weight.grad.any()
