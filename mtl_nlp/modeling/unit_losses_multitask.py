"""Losses summed over the labelled units (words, texts, decisions) of one task.

Each function returns Σ_u w_u · loss_u, a float32 scalar. Without labelled units, the sum is zero and gives the logits a
gradient of zero. `weights` is None for w_u = 1, or a tensor that is broadcastable to the shape of the units. Logits and
weights of units without a label have no influence, whatever their values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .label_kinds_multitask import IGNORED


def cross_entropy_sum(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Sum the cross-entropy over units with one class each.

    Args:
        logits: shape (*units, classes).
        targets: class ids, shape (*units) int64, `IGNORED` for units without a label; or soft targets, shape
            (*units, classes) float, a distribution per unit, all zeros or NaN for units without a label.
        weights: weights of the units, broadcastable to (*units).
        label_smoothing: the share of a target that is spread over all classes (Szegedy et al. 2016).
    """
    logits = logits.float()
    is_soft = targets.is_floating_point()
    units = targets.shape[:-1] if is_soft else targets.shape
    # For zero rows, reshape could not infer the number of units from -1.
    flat = logits.reshape(units.numel(), logits.shape[-1])
    if not is_soft and weights is None:
        return F.cross_entropy(
            flat, targets.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
        )
    if is_soft:
        known = targets.float().nan_to_num(0.0).reshape(flat.shape)
        losses = F.cross_entropy(flat, known, reduction="none", label_smoothing=label_smoothing)
        labelled = known.ne(0).any(dim=-1)
    else:
        known = targets.flatten()
        losses = F.cross_entropy(flat, known, ignore_index=IGNORED, reduction="none", label_smoothing=label_smoothing)
        labelled = known.ne(IGNORED)
    # Label smoothing also gives units without a label a target, so their losses are left out here.
    return _weighted_sum(losses, labelled, None if weights is None else weights.expand(units).flatten())


def binary_cross_entropy_sum(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum the binary cross-entropy over independent decisions.

    Args:
        logits: shape (*decisions).
        targets: the probability that each decision is positive, shape (*decisions); NaN for decisions without a label.
        weights: weights of the decisions, broadcastable to (*decisions).
    """
    labelled = targets.isnan().logical_not()
    known = torch.where(labelled, targets.float(), 0.0)
    # Where a loss is infinite, a weight of zero would make it NaN.
    logits = torch.where(labelled, logits.float(), 0.0)
    return _weighted_sum(F.binary_cross_entropy_with_logits(logits, known, reduction="none"), labelled, weights)


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
