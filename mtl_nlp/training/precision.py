"""The number format of a training that does not give one: bfloat16 where the machine computes it fast."""

from __future__ import annotations

import os

import torch

FORMATS = ("auto", "fp32", "bf16")
"""The values of the training argument `precision`."""

_FAST_CAPABILITY = (8, 0)
"""The compute capability of CUDA from which on matrix units multiply bfloat16 (Ampere)."""


def reason_for_bf16(*, use_cpu: bool) -> str | None:
    """Return the part of this machine that multiplies matrices in bfloat16 fast; None without such a part.

    Args:
        use_cpu: whether the training does not use an accelerator.
    """
    if not use_cpu and torch.cuda.is_available():
        is_fast = torch.cuda.get_device_capability() >= _FAST_CAPABILITY
        return f"the matrix units of this {torch.cuda.get_device_name()}" if is_fast else None
    if not use_cpu and torch.accelerator.is_available():
        return None  # not measured
    # torch has no public names for these; without bfloat16 in hardware, oneDNN converts every product.
    if torch.cpu._is_amx_tile_supported():
        return "the AMX units of this CPU"
    return "the AVX-512 BF16 instructions of this CPU" if torch.cpu._is_avx512_bf16_supported() else None


def uses_bf16(precision: str, *, use_cpu: bool) -> bool:
    """Return whether a training with `precision` computes in bfloat16.

    The weights and their updates stay in float32. A number format of `accelerate launch` takes precedence over `auto`,
    and so does the configuration of DeepSpeed.

    Args:
        precision: one of `FORMATS`.
        use_cpu: whether the training does not use an accelerator.
    """
    is_launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
    if precision == "auto" and (is_launched or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"):
        return False
    return precision == "bf16" or (precision == "auto" and reason_for_bf16(use_cpu=use_cpu) is not None)
