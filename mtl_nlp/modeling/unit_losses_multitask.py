"""Losses summed over the labelled units (words, texts, decisions) of one task.

Each function returns Σ_u w_u · loss_u, a float32 scalar. Without labelled units, the sum is zero and gives the logits a
gradient of zero. `weights` is None for w_u = 1, or a tensor that is broadcastable to the shape of the units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cross_entropy_sum(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Sum the cross-entropy over units with one class each.

    Args:
        logits: shape (*units, classes).
        targets: class ids, shape (*units) int64, `ignore_index` for units without a label; or soft targets, shape
            (*units, classes) float, a distribution per unit, all zeros for units without a label.
        weights: weights of the units, broadcastable to (*units).
        label_smoothing: the share of a target that is spread over all classes (Szegedy et al. 2016).
        ignore_index: the class id of a unit without a label.
    """
    logits = logits.float()
    is_soft = targets.is_floating_point()
    units = targets.shape[:-1] if is_soft else targets.shape
    # For zero rows, reshape could not infer the number of units from -1.
    flat = logits.reshape(units.numel(), logits.shape[-1])
    if is_soft:
        soft = targets.float().reshape(flat.shape)
        losses = F.cross_entropy(flat, soft, reduction="none", label_smoothing=label_smoothing)
        # Label smoothing also gives units without a label a target, so their losses are set to zero.
        losses = losses * soft.ne(0).any(dim=-1)
    else:
        losses = F.cross_entropy(
            flat,
            targets.flatten(),
            ignore_index=ignore_index,
            reduction="sum" if weights is None else "none",
            label_smoothing=label_smoothing,
        )
    if weights is not None:
        losses = losses * weights.float().expand(units).flatten()
    return losses.sum()


def binary_cross_entropy_sum(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum the binary cross-entropy over independent decisions.

    Args:
        logits: shape (*decisions).
        targets: the probability that each decision is positive, shape (*decisions); NaN for decisions without a label.
        weights: weights of the decisions, broadcastable to (*decisions).
    """
    labelled = targets.isnan().logical_not().float()
    scale = labelled if weights is None else labelled * weights.float()
    known = targets.float().nan_to_num(0.0)
    return F.binary_cross_entropy_with_logits(logits.float(), known, weight=scale, reduction="sum")


def squared_error_sum(
    outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum the squared error over numbers.

    Args:
        outputs: the predicted numbers, shape (*units).
        targets: the correct numbers, shape (*units); NaN for units without a label.
        weights: weights of the units, broadcastable to (*units).
    """
    outputs = outputs.float()
    # The target of a unit without a label is the unit's own output, so that the gradient is zero instead of NaN.
    known = torch.where(targets.isnan(), outputs.detach(), targets.float())
    if weights is None:
        return F.mse_loss(outputs, known, reduction="sum")
    return (F.mse_loss(outputs, known, reduction="none") * weights.float()).sum()
