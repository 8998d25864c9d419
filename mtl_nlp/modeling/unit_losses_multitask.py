"""Losses summed over the labelled units (words, texts, decisions) of one task.

Each function returns Σ_u w_u · loss_u, a float32 scalar. Without labelled units, the sum is zero and gives the logits a
gradient of zero. `weights` is None for w_u = 1, or a tensor that is broadcastable to the shape of the units. Logits and
weights of units without a label have no influence, whatever their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .label_kinds_multitask import IGNORED


def constants(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Return numbers as a tensor with the type and on the device of another, without a wait of the host for the device.

    Args:
        numbers: the numbers.
        like: the other tensor. A copy to CUDA from memory that is not pinned would wait for all work before it.
    """
    host = torch.tensor(numbers, dtype=like.dtype, pin_memory=like.is_cuda)
    return host.to(like.device, non_blocking=True)


def cross_entropy_sum(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
    focal: float = 0.0,
) -> torch.Tensor:
    """Sum the cross-entropy over units with one class each.

    Args:
        logits: shape (*units, classes).
        targets: class ids, shape (*units) int64, `IGNORED` for units without a label; or soft targets, shape
            (*units, classes) float, a distribution per unit, all zeros or NaN for units without a label.
        weights: weights of the units, broadcastable to (*units).
        label_smoothing: the share of a target that is spread over all classes (Szegedy et al. 2016).
        class_weights: the factor of each class's term, as in `torch.nn.CrossEntropyLoss`, shape (classes,) float.
        focal: γ of the focal loss (Lin et al. 2017), the exponent of 1 - p in -Σ_c t_c · (1 - p_c)^γ · log p_c, for the
            target t and the predicted probabilities p; 0 for the cross-entropy.
    """
    logits = logits.float()
    is_soft = targets.is_floating_point()
    units = targets.shape[:-1] if is_soft else targets.shape
    # For zero rows, reshape could not infer the number of units from -1.
    flat = logits.reshape(units.numel(), logits.shape[-1])
    options: dict[str, Any] = {"weight": class_weights, "label_smoothing": label_smoothing}
    if not is_soft and weights is None and not focal:
        return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum", **options)
    if is_soft:
        known = targets.float().nan_to_num(0.0).reshape(flat.shape)
        labelled = known.ne(0).any(dim=-1)
    else:
        known = targets.flatten()
        labelled = known.ne(IGNORED)
    if focal:
        losses = _focal_losses(torch.where(labelled[:, None], flat, 0.0), known, focal, **options)
    else:
        losses = F.cross_entropy(flat, known, ignore_index=IGNORED, reduction="none", **options)
    # Label smoothing also gives units without a label a target, so their losses are left out here.
    return _weighted_sum(losses, labelled, None if weights is None else weights.expand(units).flatten())


def _focal_losses(
    logits: torch.Tensor, targets: torch.Tensor, focal: float, *, weight: torch.Tensor | None, label_smoothing: float
) -> torch.Tensor:
    """Return the focal loss of each unit, shape (units,), for logits of shape (units, classes)."""
    classes = logits.shape[-1]
    known = targets if targets.is_floating_point() else F.one_hot(targets.clamp(min=0), classes).float()
    known = known * (1.0 - label_smoothing) + label_smoothing / classes
    log_p = logits.log_softmax(dim=-1)
    # The power of zero has an infinite gradient for an exponent below 1.
    others = (-log_p.expm1()).clamp(min=torch.finfo(torch.float32).tiny)
    terms = known * others**focal * log_p
    return -(terms if weight is None else terms * weight).sum(dim=-1)


def binary_cross_entropy_sum(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    pos_weight: torch.Tensor | None = None,
    focal: float = 0.0,
) -> torch.Tensor:
    """Sum the binary cross-entropy over independent decisions.

    Args:
        logits: shape (*decisions).
        targets: the probability that each decision is positive, shape (*decisions); NaN for decisions without a label.
        weights: weights of the decisions, broadcastable to (*decisions).
        pos_weight: the factor of the loss of positive decisions, as in `torch.nn.BCEWithLogitsLoss`, broadcastable to
            (*decisions).
        focal: γ of the focal loss (Lin et al. 2017): the loss of an outcome with the predicted probability p is
            multiplied by (1 - p)^γ.
    """
    labelled = targets.isnan().logical_not()
    known = torch.where(labelled, targets.float(), 0.0)
    # Where a loss is infinite, a weight of zero would make it NaN.
    logits = torch.where(labelled, logits.float(), 0.0)
    if focal:
        log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
        positive = known * (focal * log_q).exp() * log_p * (1.0 if pos_weight is None else pos_weight)
        losses = -positive - (1.0 - known) * (focal * log_p).exp() * log_q
    else:
        losses = F.binary_cross_entropy_with_logits(logits, known, reduction="none", pos_weight=pos_weight)
    return _weighted_sum(losses, labelled, weights)


def squared_error_sum(
    outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum the squared error over numbers.

    Args:
        outputs: the predicted numbers, shape (*units).
        targets: the correct numbers, shape (*units); NaN for units without a label.
        weights: weights of the units, broadcastable to (*units).
    """
    labelled = targets.isnan().logical_not()
    known, outputs = torch.where(labelled, targets.float(), 0.0), torch.where(labelled, outputs.float(), 0.0)
    return _weighted_sum(F.mse_loss(outputs, known, reduction="none"), labelled, weights)


def _weighted_sum(losses: torch.Tensor, labelled: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Sum the losses of the labelled units, each multiplied by its weight."""
    if weights is not None:
        losses = losses * weights.float().expand(losses.shape)
    return torch.where(labelled, losses, 0.0).sum()
