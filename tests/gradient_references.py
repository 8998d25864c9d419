"""The aggregators of torchjd beside the gradient methods."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchjd import aggregation

References = dict[str, tuple[Callable[[], nn.Module], float]]


def references(tasks: int) -> References:
    """Return torchjd's aggregator for each gradient method, with its factor to the scale of the plain sum.

    Args:
        tasks: the number of gradients.
    """
    return {
        "pcgrad": (aggregation.PCGrad, 1.0),
        "gradvac": (aggregation.GradVac, 1.0),
        "cagrad": (lambda: aggregation.CAGrad(c=0.5), tasks / 1.5),
        "aligned-mtl": (aggregation.AlignedMTL, float(tasks)),
        "upgrad": (aggregation.UPGrad, float(tasks)),
        "nash-mtl": (lambda: aggregation.NashMTL(n_tasks=tasks), 1.0),
        "imtl-g": (aggregation.IMTLG, float(tasks)),
        "mgda": (aggregation.MGDA, float(tasks)),
        "graddrop": (aggregation.GradDrop, 1.0),
    }
