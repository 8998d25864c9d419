"""The pull, a penalty that draws the adapters of tasks towards their mean."""

from __future__ import annotations

import torch

from mtl_nlp.modeling.adapters_multitask import (
    SHARED,
    low_rank_factors,
    peft_adapter_name,
)
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def check_pull(model: MultitaskModel) -> None:
    """Check that a model has adapters that can be pulled towards each other.

    Raises:
        ValueError: if the model has fewer than two adapters of tasks, or if an adapter of a task is a DoRA adapter.
    """
    own = [options for options in model.config.adapters or () if options["name"] != SHARED]
    if len(own) < 2:
        raise ValueError(
            f"`pull` draws the adapters of tasks towards each other, and needs two. Found {len(own)}. Add adapters, or "
            f"leave out `pull`."
        )
    if any(options["use_dora"] for options in own):
        raise ValueError(
            "`pull` applies to LoRA adapters only, since the change of a DoRA adapter is not a product of two factors. "
            "Leave out `pull`, or set `use_dora: false`."
        )


class AdapterPull:
    """The penalty λ · Σ_layers Σ_t ‖ΔW_t − mean_t ΔW_t‖²_F, see `adapter_deviation`.

    Args:
        model: the model with the adapters.
        strength: λ.

    Raises:
        ValueError: if the adapters cannot be pulled, see `check_pull`.
    """

    def __init__(self, model: MultitaskModel, strength: float) -> None:
        check_pull(model)
        self.model = model
        self.strength = strength

    def penalty(self) -> torch.Tensor:
        """Return the penalty, a scalar in float32 with gradients to the adapters."""
        return self.strength * adapter_deviation(self.model)


def adapter_deviation(model: MultitaskModel) -> torch.Tensor:
    """Return the squared distance of the tasks' adapters from their mean, Σ_layers Σ_t ‖ΔW_t − mean_t ΔW_t‖²_F.

    ΔW_t = s_t B_t A_t is never built: ⟨ΔW_s, ΔW_t⟩ is the sum of the elementwise product of B_sᵀB_t and A_sA_tᵀ, and
    Σ_t ‖ΔW_t − mean‖² = Σ_t ⟨ΔW_t, ΔW_t⟩ − 1/T Σ_s,t ⟨ΔW_s, ΔW_t⟩. The shared adapter is left out, since all tasks
    have it.

    Args:
        model: the model with the adapters.

    Returns:
        A scalar in float32.
    """
    names = [peft_adapter_name(name) for name in model.adapter_names if name != SHARED]
    total = torch.zeros((), device=model.device)
    with torch.autocast(model.device.type, enabled=False):
        for factors in low_rank_factors(model.encoder, names).values():
            down = torch.cat([of_task for of_task, _ in factors]).float()
            up = torch.cat([of_task for _, of_task in factors], dim=1).float()
            own = torch.block_diag(*[down.new_ones(len(of_task), len(of_task)) for of_task, _ in factors])
            total = total + ((down @ down.T) * (up.T @ up) * (own - 1.0 / len(names))).sum()
    return total
