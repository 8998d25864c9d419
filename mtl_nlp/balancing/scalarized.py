"""Weights from a scalarizer, a function of the vector of losses."""

from __future__ import annotations

from collections.abc import Callable

import torch


def gradient_weights(
    scalarizer: Callable[[torch.Tensor], torch.Tensor], losses: torch.Tensor, *, is_learned: bool = False
) -> torch.Tensor:
    """Return the weights w_t = ∂f/∂L_t of a scalarizer f, such as a scalarizer of torchjd.

    The joint loss Σ_t w_t L_t with these weights has the gradient of f(L_1, …, L_T) with respect to the model.

    Args:
        scalarizer: f, a function from a tensor of losses to a scalar.
        losses: the losses, any shape. Their graph is not used.
        is_learned: whether the weights have a graph to the parameters of f.

    Returns:
        The weights, in the shape of the losses.
    """
    values = losses.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(scalarizer(values), values, create_graph=is_learned)[0]
