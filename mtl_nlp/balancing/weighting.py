"""The contract of loss weightings: the methods that choose each task's weight in the joint loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mtl_nlp.modeling.loss_multitask import StepCounts

NEEDS = frozenset({"losses"})
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
    """

    counts: StepCounts
    losses: Mapping[str, torch.Tensor]
    progress: float = 0.0


class LossWeighting(nn.Module, ABC):
    """A method that chooses w_t in the joint loss Σ_t w_t · (n_t / N) · CE_t / u_t + penalty.

    Each method is one subclass in one file. The optimizer trains the parameters of the method in a group without
    weight decay, and a checkpoint contains only the `state_dict` (parameters and buffers) of the method. Gradients that
    reach the parameters through the weights are summed over micro-batches and processes; `max_grad_norm` neither counts
    nor scales these gradients. A method must not make the host wait for the device.

    Attributes:
        needs: the measurements that `weights` reads. "losses" are the losses of the current step: these are free if a
            step has one micro-batch, and cost a second forward pass without gradients if a step has more.
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

    def penalty(self) -> torch.Tensor:
        """Return a scalar that is added once to the loss of each optimizer step; zero by default.

        The scalar must be equal in all processes.
        """
        return torch.zeros(())

    def after_step(self, step: WeightingStep) -> None:
        """Update the state after an optimizer step; do nothing by default.

        The trainer calls this method under `torch.no_grad`, and sums the losses over the processes only for classes
        that override this method or need "losses".
        """

    @classmethod
    def watches_losses(cls) -> bool:
        """Return whether the class reads the losses of a step, in `weights` or in `after_step`."""
        return "losses" in cls.needs or cls.after_step is not LossWeighting.after_step
