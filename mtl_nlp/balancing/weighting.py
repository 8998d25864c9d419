"""The contract of loss weightings: the methods that choose each task's weight in the joint loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from mtl_nlp.modeling.loss_multitask import StepCounts

NEEDS = frozenset({"losses", "gradient_norms", "second_forward"})
"""The names that `LossWeighting.needs` may hold."""


@dataclass(frozen=True)
class WeightingStep:
    """The measurements of one optimizer step, over all micro-batches and processes.

    Attributes:
        counts: the step's rows and labels.
        losses: the mean loss L_t = CE_t / u_t of each task that has labels in the step, a detached scalar on the
            device. `after_step` always receives the losses; `weights` receives none unless the weighting needs
            "losses".
        progress: the share of the training's optimizer steps before this step, 0 to 1.
        shares: s_t, the factor by which the joint loss multiplies w_t · L_t: n_t / N, or 1 with the scale `per_task`;
            0 for a task without labels in the step.
        epoch: the epoch of the step, from 0.
        number: the number of optimizer steps before this step.
        gradient_norms: ‖∇_W L_t‖ of each task in `losses`, where W are the shared weights of the encoder's last layer;
            only in `after_step`, and only for a weighting that needs "gradient_norms".
        losses_after: L_t after the optimizer step, on the rows of the step; only in `after_step`, and only for a
            weighting that needs "second_forward".
    """

    counts: StepCounts
    losses: Mapping[str, torch.Tensor]
    progress: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    epoch: int = 0
    number: int = 0
    gradient_norms: Mapping[str, torch.Tensor] = field(default_factory=dict)
    losses_after: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LossWeighting(nn.Module, ABC):
    """A method that chooses w_t in the joint loss Σ_t w_t · (n_t / N) · CE_t / u_t + penalty.

    Each method is one subclass in one file. The optimizer trains the parameters of the method in a group without
    weight decay, and a checkpoint contains only the `state_dict` (parameters and buffers) of the method. Gradients that
    reach the parameters through the weights are summed over micro-batches and processes; `max_grad_norm` neither counts
    nor scales these gradients. A method must not make the host wait for the device.

    Attributes:
        needs: the measurements that the method reads. "losses" are the losses of the current step in `weights`: these
            are free if a step has one micro-batch, and cost a forward pass without gradients if a step has more.
            "gradient_norms" cost a backward pass through the encoder's last layer per task, and "second_forward" costs
            a forward pass without gradients after each step.
        is_constant: whether the weights never change. Constant weights are not logged.
        learning_rate: the learning rate of the parameters; `None` for `learning_rate` of the training arguments. The
            schedule applies to both.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    is_constant: bool = False
    learning_rate: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check that the class needs only existing measurements.

        Raises:
            ValueError: if `needs` holds an unknown name.
        """
        super().__init_subclass__(**kwargs)
        if unknown := cls.needs - NEEDS:
            raise ValueError(
                f"`{cls.__name__}.needs` should hold names of {sorted(NEEDS)}. Found {', '.join(sorted(unknown))}."
            )

    @abstractmethod
    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weight of each task, a scalar on the device; a task that is not named has the weight 1.

        The trainer calls this method once per optimizer step, and once per evaluation with the evaluated losses. The
        weights must be equal in all processes and may require gradients. Only `after_step` may change the state.
        """

    def penalty(self, step: WeightingStep) -> torch.Tensor:
        """Return a scalar that is added once to the loss of each optimizer step; zero by default.

        The scalar must be equal in all processes.

        Args:
            step: the step, as in `weights`.
        """
        return torch.zeros(())

    def after_step(self, step: WeightingStep) -> None:
        """Update the state after an optimizer step; do nothing by default.

        The trainer calls this method under `torch.no_grad`, and sums the losses over the processes only for classes
        that override this method or need "losses".
        """

    def needs_at(self, number: int) -> frozenset[str]:
        """Return the measurements that the method reads in a step; those of `needs` by default.

        Args:
            number: the number of optimizer steps before the step.
        """
        return self.needs

    @classmethod
    def watches_losses(cls) -> bool:
        """Return whether the class reads the losses of a step, in `weights` or in `after_step`."""
        return "losses" in cls.needs or cls.after_step is not LossWeighting.after_step
