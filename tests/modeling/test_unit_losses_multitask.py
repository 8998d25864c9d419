"""Summed losses equal their formulas, evaluated unit by unit."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mtl_nlp.modeling.unit_losses_multitask import binary_cross_entropy_sum, cross_entropy_sum, squared_error_sum

SMOOTHING = (0.0, 0.1)


def random_logits(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, requires_grad=True)


def close(found: torch.Tensor, expected: float) -> None:
    assert found.dtype == torch.float32
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-5)


def smoothed(distribution: list[float], share: float) -> list[float]:
    return [(1 - share) * value + share / len(distribution) for value in distribution]


def cross_entropy_of(logits: list[float], distribution: list[float]) -> float:
    """Return -Σ_c t_c · log p_c."""
    normaliser = math.log(math.fsum(math.exp(value) for value in logits))
    return -math.fsum(t * (value - normaliser) for t, value in zip(distribution, logits, strict=True))


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
@pytest.mark.parametrize("weights", [None, [[1.0, 0.5, 2.0], [0.0, 3.0, 0.25]]])
def test_cross_entropy_of_class_ids_follows_the_formula(weights, label_smoothing):
    logits = random_logits(2, 3, 4)
    targets = [[1, -100, 3], [0, 2, -100]]
    of_units = [[1.0] * 3] * 2 if weights is None else weights
    expected = math.fsum(
        of_units[row][word]
        * cross_entropy_of(
            logits[row, word].tolist(), smoothed([float(c == target) for c in range(4)], label_smoothing)
        )
        for row, target_row in enumerate(targets)
        for word, target in enumerate(target_row)
        if target != -100
    )
    given = None if weights is None else torch.tensor(weights)
    close(cross_entropy_sum(logits, torch.tensor(targets), given, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
@pytest.mark.parametrize("weights", [None, [[1.0, 0.5, 2.0], [0.0, 3.0, 0.25]]])
def test_cross_entropy_of_soft_targets_follows_the_formula(weights, label_smoothing):
    logits = random_logits(2, 3, 4)
    soft = torch.rand(2, 3, 4).softmax(-1)
    soft[0, 1] = 0.0  # no label
    of_units = [[1.0] * 3] * 2 if weights is None else weights
    expected = math.fsum(
        of_units[row][word]
        * cross_entropy_of(logits[row, word].tolist(), smoothed(soft[row, word].tolist(), label_smoothing))
        for row in range(2)
        for word in range(3)
        if (row, word) != (0, 1)
    )
    given = None if weights is None else torch.tensor(weights)
    close(cross_entropy_sum(logits, soft, given, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_class_ids_and_one_hot_targets_have_equal_losses_and_gradients(label_smoothing):
    logits = random_logits(5, 3)
    targets = torch.tensor([0, 2, -100, 1, 1])
    certain = F.one_hot(targets.clamp(min=0), 3).float() * targets.ne(-100)[:, None]
    hard = cross_entropy_sum(logits, targets, label_smoothing=label_smoothing)
    (of_hard,) = torch.autograd.grad(hard, logits)
    soft = cross_entropy_sum(logits, certain, label_smoothing=label_smoothing)
    (of_soft,) = torch.autograd.grad(soft, logits)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-6)
    torch.testing.assert_close(of_soft, of_hard, rtol=0, atol=1e-6)


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_cross_entropy_without_weights_is_bit_equal_to_torch(label_smoothing):
    logits, targets = random_logits(6, 5), torch.tensor([1, -100, 0, 4, -100, 2])
    expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    assert torch.equal(cross_entropy_sum(logits, targets, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("weights", [None, [[2.0, 0.5]]])
def test_binary_cross_entropy_follows_the_formula(weights):
    logits = random_logits(2, 2)
    targets = [[1.0, 0.3], [0.0, math.nan]]
    of_decisions = [[1.0, 1.0] if weights is None else weights[0]] * 2
    expected = 0.0
    for row in range(2):
        for column, target in enumerate(targets[row]):
            p = 1 / (1 + math.exp(-logits[row, column].item()))
            if not math.isnan(target):
                term = target * math.log(p) + (1 - target) * math.log(1 - p)
                expected -= of_decisions[row][column] * term
    given = None if weights is None else torch.tensor(weights)
    loss = binary_cross_entropy_sum(logits, torch.tensor(targets), given)
    close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[1, 1] == 0
    assert gradient[0].all()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_squared_error_follows_the_formula(weights):
    outputs = random_logits(3)
    targets = [1.0, math.nan, -2.0]
    expected = math.fsum(
        (1.0 if weights is None else weights[unit]) * (outputs[unit].item() - target) ** 2
        for unit, target in enumerate(targets)
        if not math.isnan(target)
    )
    given = None if weights is None else torch.tensor(weights)
    loss = squared_error_sum(outputs, torch.tensor(targets), given)
    close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert gradient[1] == 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss_sum", "logits", "targets"),
    [
        (cross_entropy_sum, (0, 4, 3), torch.zeros(0, 4, dtype=torch.long)),
        (cross_entropy_sum, (0, 4, 3), torch.zeros(0, 4, 3)),
        (cross_entropy_sum, (2, 3), torch.tensor([-100, -100])),
        (cross_entropy_sum, (2, 3), torch.zeros(2, 3)),
        (binary_cross_entropy_sum, (0, 3), torch.zeros(0, 3)),
        (squared_error_sum, (0,), torch.zeros(0)),
        (squared_error_sum, (2,), torch.full((2,), math.nan)),
    ],
)
def test_loss_without_labelled_units_is_zero_with_zero_gradients(loss_sum, logits, targets, weighted):
    values = random_logits(*logits)
    loss = loss_sum(values, targets, torch.tensor(2.0) if weighted else None)
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_summed_in_float32(dtype):
    logits = random_logits(4, 3).to(dtype)
    expected = F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0]), reduction="sum")
    assert torch.equal(cross_entropy_sum(logits, torch.tensor([0, 1, 2, 0])), expected)
    for loss in (binary_cross_entropy_sum, squared_error_sum):
        assert loss(logits, torch.zeros(4, 3, dtype=dtype)).dtype == torch.float32


NAN = float("nan")


@pytest.mark.parametrize(
    ("loss_sum", "logits", "targets"),
    [
        (cross_entropy_sum, [[1.0, 2.0], [NAN, NAN]], [[0.5, 0.5], [NAN, NAN]]),
        (cross_entropy_sum, [[1.0, 2.0], [NAN, NAN]], [1, -100]),
        (binary_cross_entropy_sum, [1.0, float("inf")], [1.0, NAN]),
        (squared_error_sum, [1.0, float("inf")], [0.5, NAN]),
    ],
)
@pytest.mark.parametrize("weights", [None, [2.0, NAN]])
def test_units_without_a_label_have_no_influence_whatever_their_values(loss_sum, logits, targets, weights):
    logits, targets = torch.tensor(logits), torch.tensor(targets)
    weights = None if weights is None else torch.tensor(weights)
    first = None if weights is None else weights[:1]
    assert torch.equal(loss_sum(logits, targets, weights), loss_sum(logits[:1], targets[:1], first))


def test_weights_of_another_shape_are_refused_instead_of_multiplying_all_pairs():
    with pytest.raises(RuntimeError, match="expand"):
        squared_error_sum(torch.zeros(3), torch.ones(3), torch.ones(3, 1))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_follows_the_formula(gamma):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, -100, 1])
    weight = torch.tensor([2.0, 1.0, 0.5])
    own = targets.ne(-100)
    p = logits.softmax(-1)[own, targets[own]]
    terms = -((1 - p) ** gamma) * p.log() * weight[targets[own]]
    found = cross_entropy_sum(logits, targets, focal=gamma, class_weights=weight)
    torch.testing.assert_close(found, terms.sum())
    certain = torch.tensor([1.0, 0.0, 1.0])
    q = torch.where(certain.bool(), logits[0].sigmoid(), 1 - logits[0].sigmoid())
    expected = (-((1 - q) ** gamma) * q.log() * torch.where(certain.bool(), weight, 1.0)).sum()
    torch.testing.assert_close(binary_cross_entropy_sum(logits[0], certain, focal=gamma, pos_weight=weight), expected)


def test_focal_loss_without_focus_is_the_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3), torch.tensor([[0.2, 0.8, 0.0]] * 3 + [[0.0] * 3])
    for smoothing in (0.0, 0.1):
        sums = [cross_entropy_sum(logits, targets, label_smoothing=smoothing, focal=gamma) for gamma in (0.0, 1e-12)]
        torch.testing.assert_close(*sums)
    torch.testing.assert_close(*(binary_cross_entropy_sum(logits, targets, focal=gamma) for gamma in (0.0, 1e-12)))


@pytest.mark.parametrize("far", [20.0, 200.0])
def test_gradient_of_the_focal_loss_is_finite_for_certain_predictions(far):
    logits = torch.tensor([[far, -far], [-far, far]], requires_grad=True)
    loss = cross_entropy_sum(logits, torch.tensor([0, 0]), focal=0.5)
    loss = loss + binary_cross_entropy_sum(logits, torch.ones(2, 2), focal=0.5)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_factor_of_positive_decisions_is_that_of_torch():
    torch.manual_seed(0)
    logits, targets, factor = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float(), torch.tensor([2.0, 1.0, 0.5])
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=factor)
    torch.testing.assert_close(binary_cross_entropy_sum(logits, targets, pos_weight=factor) / 12, expected)
