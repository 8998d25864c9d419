"""The label kind of units with one class each, for words and for texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .label_kinds_multitask import LabelKind, has_target

if TYPE_CHECKING:
    import torch


class OneClassKind(LabelKind):
    """A kind with one class per unit: cross-entropy with class ids or soft targets."""

    problem_type = "single_label_classification"

    def is_labelled(self, targets: torch.Tensor) -> torch.Tensor:
        """Return True for units with a class id, or with a distribution that is neither all zeros nor NaN."""
        return targets.nan_to_num(0.0).ne(0).any(dim=-1) if targets.is_floating_point() else has_target(targets)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the summed cross-entropy."""
        # Imported here, since this module must not import torch.
        from .unit_losses_multitask import cross_entropy_sum

        return cross_entropy_sum(logits, targets, weights, label_smoothing=label_smoothing)
