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
            device. Empty in `weights` unless the weighting needs "losses"; always given in `after_step`.
    """

    counts: StepCounts
    losses: Mapping[str, torch.Tensor]


class LossWeighting(nn.Module, ABC):
    """A method that chooses w_t in the joint loss Σ_t w_t · (n_t / N) · CE_t / u_t + penalty.

    A method is one subclass in one file. Its parameters are trained, in a group of the optimizer without weight decay;
    its `state_dict` (parameters and buffers) is all that a checkpoint keeps of it. The gradients that reach the
    parameters through the weights are summed over micro-batches and processes; `max_grad_norm` neither counts nor
    scales them. No method may make the host wait for the device.

    Attributes:
        needs: the measurements that `weights` reads. "losses" are the losses of the step that is being weighted: they
            cost nothing where a step is one micro-batch, and a second forward pass without gradients where it is more.
        is_constant: whether the weights never change, so that they are not logged.
        learning_rate: the learning rate of the parameters; `None` for that of the training arguments. The schedule
            applies to both.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    is_constant: ClassVar[bool] = False
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

        Called once per optimizer step, and by each evaluation with the evaluated losses. The weights must be equal in
        all processes and may require gradients. This method must not change the state: `after_step` does.
        """

    def penalty(self) -> torch.Tensor:
        """Return a scalar that is added to the loss of each optimizer step once, equal in all processes; zero here."""
        return torch.zeros(())

    def after_step(self, step: WeightingStep) -> None:
        """Update the state after an optimizer step; nothing here.

        Called without gradients. The losses are summed over the processes only for classes that override this method
        or need "losses".
        """

    @classmethod
    def watches_losses(cls) -> bool:
        """Return whether the class reads the losses of a step, in `weights` or in `after_step`."""
        return "losses" in cls.needs or cls.after_step is not LossWeighting.after_step
