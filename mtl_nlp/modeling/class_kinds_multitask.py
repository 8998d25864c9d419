"""The label kind of units with one class each, for words and for texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .label_kinds_multitask import LabelKind, has_target

if TYPE_CHECKING:
    import torch


class OneClassKind(LabelKind):
    """A kind with one class per unit: cross-entropy with class ids or soft targets.

    With class weights, the weight of a unit is the weight of its class, so that the mean loss is that of
    `torch.nn.CrossEntropyLoss(weight)`. For a soft target, the weight is the mean over its distribution.

    Args:
        name: the task's name.
        labels: the label space in the order of the logits.
        class_weights: class -> weight, 1 for a class that is not named; None for the same weight of all units.
        focal: γ of the focal loss (Lin et al. 2017); 0 for the cross-entropy.
    """

    problem_type = "single_label_classification"

    def __init__(
        self,
        name: str,
        labels: Sequence[str] = (),
        *,
        class_weights: Mapping[str, float] | None = None,
        focal: float = 0.0,
    ) -> None:
        super().__init__(name, labels)
        self.class_weights = None if class_weights is None else [class_weights.get(each, 1.0) for each in self.labels]
        self.focal = focal

    def is_labelled(self, targets: torch.Tensor) -> torch.Tensor:
        """Return True for units with a class id, or with a distribution that is neither all zeros nor NaN."""
        return targets.nan_to_num(0.0).ne(0).any(dim=-1) if targets.is_floating_point() else has_target(targets)

    def count_units(self, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return the total weight of the labelled units: the product of class weight and `weights`."""
        if self.class_weights is None:
            return super().count_units(targets, weights)
        of_class = targets.float().new_tensor(self.class_weights)
        if targets.is_floating_point():
            of_unit = targets.nan_to_num(0.0).float() @ of_class
        else:
            of_unit = of_class[targets.clamp(min=0)]
        return super().count_units(targets, of_unit if weights is None else of_unit * weights.float())

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the summed cross-entropy or focal loss."""
        # Imported here, since this module must not import torch.
        from .unit_losses_multitask import constants, cross_entropy_sum

        of_class = None if self.class_weights is None else constants(self.class_weights, logits.float())
        return cross_entropy_sum(
            logits, targets, weights, label_smoothing=label_smoothing, class_weights=of_class, focal=self.focal
        )

    def mixed_targets(self, targets: torch.Tensor, scores: torch.Tensor, share: float) -> torch.Tensor:
        """Return a distribution over the classes, mixed of the label and the teacher's softmax; zeros without a label.

        Args:
            targets: class ids, shape (*units).
            scores: shape (*units, classes).
            share: the share of the label, 0 to 1.
        """
        # Imported here, since this module must not import torch.
        import torch.nn.functional as F

        of_label = F.one_hot(targets.clamp(min=0), len(self.labels)).float()
        mixed = share * of_label + (1.0 - share) * scores.float().softmax(dim=-1)
        return mixed * self.is_labelled(targets)[..., None]
