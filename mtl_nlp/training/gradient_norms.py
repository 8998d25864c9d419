"""The norm of each task's gradient on the shared weights of the encoder's last layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import nn

from mtl_nlp.modeling.adapters_multitask import SHARED, adapter_parameters, peft_adapter_name
from mtl_nlp.modeling.layers_multitask import layers_or_groups
from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def last_shared_layer(model: MultitaskModel) -> list[nn.Parameter]:
    """Return the trained weights of the encoder's last layer that all tasks share.

    See `layers_or_groups` for encoders whose layers share their weights, such as ALBERT. An encoder without a list of
    layers is one layer.

    Args:
        model: the model.

    Raises:
        ValueError: if the layer has no shared weights that are trained.
    """
    layers = layers_or_groups(model.encoder) or [model.encoder]
    own = [peft_adapter_name(name) for name in model.adapter_names if name != SHARED]
    of_tasks = {id(parameter) for parameter in adapter_parameters(model.encoder, own)}
    shared = [each for each in layers[-1].parameters() if each.requires_grad and id(each) not in of_tasks]
    if not shared:
        raise ValueError(
            "The norms of the tasks' gradients need shared weights in the encoder's last layer that are trained, and "
            "all of them are frozen. Train the encoder or a shared adapter, or choose a different loss weighting."
        )
    return shared


class GradientNorms:
    """The sum of each task's gradient ∇_W L_t over the micro-batches and processes of an optimizer step.

    Each gradient takes a backward pass through the task's head and the encoder's last layer.

    Args:
        weights: W, see `last_shared_layer`.
        accelerator: the accelerator, which sums over processes.
    """

    def __init__(self, weights: list[nn.Parameter], accelerator: Accelerator) -> None:
        self.weights = weights
        self.accelerator = accelerator
        self._sums: dict[str, torch.Tensor] = {}

    def begin(self, counts: StepCounts) -> None:
        """Begin an optimizer step with these counts over all micro-batches and processes."""
        # A process without rows of a task takes part in the sum over processes.
        size = sum(weight.numel() for weight in self.weights)
        device = self.accelerator.device
        self._units = {task: units for task, units in counts.units.items() if units}
        self._sums = {task: torch.zeros(size, device=device) for task in self._units}

    def add(self, loss_sums: Mapping[str, torch.Tensor]) -> None:
        """Add the gradients of a micro-batch. Its graph is kept.

        Args:
            loss_sums: the summed loss of all tasks or of some.
        """
        scaler = self.accelerator.scaler
        for task in self._units.keys() & loss_sums:
            loss = loss_sums[task] / self._units[task]
            scaled = loss if scaler is None else scaler.scale(loss)  # fp16 would lose small gradients
            found = torch.autograd.grad(scaled, self.weights, retain_graph=True, allow_unused=True)
            gradient = torch.cat(
                [
                    (torch.zeros_like(weight) if own is None else own).flatten().float()
                    for weight, own in zip(self.weights, found, strict=True)
                ]
            )
            self._sums[task] += gradient if scaler is None else gradient / scaler.scale(torch.ones_like(loss))

    def take(self) -> dict[str, torch.Tensor]:
        """Return the norm of each task with labels in the step, equal in all processes, and free the gradients."""
        sums, self._sums = self._sums, {}
        if not sums:
            return {}
        total = self.accelerator.reduce(torch.stack(list(sums.values())), "sum")
        return dict(zip(sums, total.norm(dim=1).unbind(), strict=True))
