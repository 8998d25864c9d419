"""The gradient methods of torchjd, adapted to steps without rows of some tasks and to resumed runs.

The methods are the weightings and aggregators of `torchjd.aggregation` (extra `balancing`), see [`GradientMethod`].
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn

from mtl_nlp.balancing.gradients import GradientMethod, check_number, normalised, seeded
from mtl_nlp.balancing.parameters import check_known
from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import conceal

_ScaleMode = Literal["min", "median", "rmse"]


class _OfGramian(GradientMethod):
    """A method without a state whose coefficients do not depend on the scale of the gradients.

    Args:
        tasks: the names of all tasks.
        weighting: the weighting of torchjd.
        factor: the factor of the weighting's result, as a function of the number of gradients.
    """

    def __init__(
        self, tasks: Iterable[str], weighting: nn.Module, factor: Callable[[int], float] = lambda _: 1.0
    ) -> None:
        super().__init__(tasks)
        self._weighting, self._factor = weighting, factor

    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the coefficient of each gradient, see `GradientMethod.coefficients`."""
        return self._factor(len(rows)) * self._weighting(normalised(gramian))


class PCGrad(_OfGramian):
    """PCGrad, gradient surgery (Yu et al. 2020, https://arxiv.org/abs/2001.06782).

    For each task i, and each other task j in random order: if ⟨g_i, g_j⟩ < 0, subtract ⟨g_i, g_j⟩ / ‖g_j‖² · g_j from
    g_i. The update is the sum of the changed gradients. The plain sum remains where no two gradients conflict. A first
    choice if `conflict.json` shows conflicts.

    Args:
        tasks: the names of all tasks.
    """

    is_random: ClassVar[bool] = True

    def __init__(self, tasks: Iterable[str]) -> None:
        from torchjd.aggregation import PCGradWeighting

        super().__init__(tasks, PCGradWeighting())


class GradVac(GradientMethod):
    """Gradient Vaccine (Wang et al. 2021, https://arxiv.org/abs/2010.05874).

    Like PCGrad, but task i is changed until its cosine with task j reaches φ_ij, the moving average of this cosine:
    φ ← (1 − β) φ + β cos. For many related tasks, such as languages, whose gradients normally agree.

    Args:
        tasks: the names of all tasks.
        beta: β, 0 to 1.
    """

    is_random: ClassVar[bool] = True
    cosines: torch.Tensor

    def __init__(self, tasks: Iterable[str], beta: float = 0.5) -> None:
        from torchjd.aggregation import GradVacWeighting

        super().__init__(tasks)
        check_number("beta", beta, 0.0, 1.0)
        self._new_weighting = functools.partial(GradVacWeighting, beta=beta)
        self.register_buffer("cosines", torch.zeros(len(self.tasks), len(self.tasks)))

    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the coefficient of each gradient, and update the averages of the cosines of these tasks."""
        of_rows = torch.tensor(rows)[:, None], torch.tensor(rows)
        weighting = self._new_weighting()
        with seeded(0, gramian.device):
            weighting(torch.eye(len(rows)))  # creates the buffer, into which the state is loaded
        (name,) = weighting.state_dict()
        weighting.load_state_dict({name: self.cosines[of_rows]})
        found = weighting(normalised(gramian))
        self.cosines[of_rows] = weighting.state_dict()[name]
        return found


class CAGrad(_OfGramian):
    """Conflict-averse gradient descent (Liu et al. 2021, https://arxiv.org/abs/2110.14048).

    The update maximises the smallest improvement min_t ⟨g_t, d⟩ over all d with ‖d − g_0‖ ≤ c ‖g_0‖, where g_0 is the
    mean gradient. The result d is multiplied by the number of tasks and divided by 1 + c, so that equal gradients give
    their sum. For a compromise between the plain sum (c = 0) and MGDA (large c).

    Args:
        tasks: the names of all tasks.
        c: c, at least 0; below 1, the method converges to a minimum of the mean loss.
    """

    def __init__(self, tasks: Iterable[str], c: float = 0.5) -> None:
        from torchjd.aggregation import CAGradWeighting

        check_number("c", c, 0.0)
        super().__init__(tasks, CAGradWeighting(c=c), lambda count: count / (1.0 + c))


class AlignedMTL(_OfGramian):
    """Aligned-MTL (Senushkin et al. 2023, https://arxiv.org/abs/2305.19000).

    The gradients are replaced by the nearest orthogonal vectors of one length, whose squared length is the smallest
    eigenvalue of the Gramian, and summed. torchjd's mean is multiplied by the number of tasks. For tasks of very
    different gradient norms. Where two gradients are almost parallel, the update is small.

    Args:
        tasks: the names of all tasks.
        scale_mode: the squared length: the `min`, the `median` or the mean (`rmse`) of the eigenvalues.
    """

    def __init__(self, tasks: Iterable[str], scale_mode: _ScaleMode = "min") -> None:
        from torchjd.aggregation import AlignedMTLWeighting

        if scale_mode not in get_args(_ScaleMode):
            modes = ", ".join(get_args(_ScaleMode))
            raise ValueError(f"scale_mode: should be one of {modes}. Found {conceal(repr(scale_mode)):.80}.")
        super().__init__(tasks, AlignedMTLWeighting(scale_mode=scale_mode), float)


class UPGrad(_OfGramian):
    """UPGrad (Quinton & Rey 2024, https://arxiv.org/abs/2406.16232).

    Each gradient is projected onto the cone of directions that conflict with no task, and the projections are summed
    (torchjd's mean, multiplied by the number of tasks). To first order, the update increases no task's loss. Unlike
    PCGrad, the result does not depend on an order of the tasks.

    Args:
        tasks: the names of all tasks.
    """

    def __init__(self, tasks: Iterable[str]) -> None:
        from torchjd.aggregation import UPGradWeighting

        super().__init__(tasks, UPGradWeighting(), float)


class NashMTL(GradientMethod):
    """Nash-MTL (Navon et al. 2022, https://arxiv.org/abs/2202.01017).

    The coefficients α solve G α = 1 / α, the Nash bargaining solution: every task improves by the same proportion. The
    scale of the losses has no effect, so this method alone does not keep the scale of the plain sum: the update has the
    norm √k for k tasks, which `max_norm` limits. It solves a sequence of convex problems on the CPU in each step, and
    starts from the previous α. Where the solver fails, torchjd keeps the previous α; rounding decides, so that runs on
    different numbers of processes can differ.

    Args:
        tasks: the names of all tasks.
        max_norm: the largest norm of the update before `max_grad_norm` clips all gradients; 0 for no limit.
        optim_niter: the largest number of convex problems in a step.
    """

    alpha: torch.Tensor

    def __init__(self, tasks: Iterable[str], max_norm: float = 1.0, optim_niter: int = 20) -> None:
        from torchjd.aggregation import NashMTL as Aggregator

        super().__init__(tasks)
        check_number("max_norm", max_norm, 0.0)
        check_number("optim_niter", optim_niter, 1, is_integer=True)
        # The solver's problem depends on the number of gradients, and takes long to build.
        self._solver = functools.cache(
            lambda count: Aggregator(n_tasks=count, max_norm=max_norm, optim_niter=optim_niter).weighting
        )
        self._solver(len(self.tasks))  # raises ImportError if a solver is missing
        self.register_buffer("alpha", torch.ones(len(self.tasks), dtype=torch.float64))

    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the coefficient of each gradient, and keep α for the next step."""
        weighting = self._solver(len(rows))
        weighting.prvs_alpha = self.alpha[list(rows)].numpy()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are solving a parameterized problem that is not DPP")
            found = weighting(_root(gramian))
        self.alpha[list(rows)] = torch.as_tensor(weighting.prvs_alpha, dtype=torch.float64)
        return found


class IMTLG(_OfGramian):
    """IMTL-G (Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr).

    The update has the same projection onto every normalised gradient: c ∝ G⁺ (‖g_1‖, …, ‖g_k‖), with the sum of the
    coefficients equal to the number of tasks. Coefficients may be negative, and are large for opposite gradients.

    Args:
        tasks: the names of all tasks.
    """

    def __init__(self, tasks: Iterable[str]) -> None:
        from torchjd.aggregation import IMTLGWeighting

        super().__init__(tasks, IMTLGWeighting(), float)


class MGDA(_OfGramian):
    """The multiple-gradient descent algorithm (Désidéri 2012; Sener & Koltun 2018, https://arxiv.org/abs/1810.04650).

    The update is the shortest vector in the convex hull of the gradients, found by the algorithm of Frank and Wolfe,
    multiplied by the number of tasks. Tasks with small gradients dominate, so the losses should have similar scales.

    Args:
        tasks: the names of all tasks.
        epsilon: the step of Frank and Wolfe below which the search ends.
        max_iters: the largest number of steps of the search.
    """

    def __init__(self, tasks: Iterable[str], epsilon: float = 0.001, max_iters: int = 100) -> None:
        from torchjd.aggregation import MGDAWeighting

        check_number("epsilon", epsilon, 1e-12)
        check_number("max_iters", max_iters, 1, is_integer=True)
        super().__init__(tasks, MGDAWeighting(epsilon=epsilon, max_iters=max_iters), float)


class GradDrop(GradientMethod):
    """GradDrop, gradient sign dropout (Chen et al. 2020, https://arxiv.org/abs/2010.06808).

    For each parameter, one sign is drawn with the probability P = ½ (1 + Σ_t g_t / Σ_t |g_t|) for the positive sign,
    and only gradients of that sign are summed. The method adds noise, which grows with the conflict.

    Args:
        tasks: the names of all tasks.
        leak: the share of the gradients that is summed whatever the sign, 0 to 1.
    """

    is_random: ClassVar[bool] = True

    def __init__(self, tasks: Iterable[str], leak: float = 0.0) -> None:
        from torchjd.aggregation import GradDrop as Aggregator

        super().__init__(tasks)
        check_number("leak", leak, 0.0, 1.0)
        self._new_aggregator = Aggregator
        self.leak = leak

    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Raise a `TypeError`, since each parameter has coefficients of its own."""
        raise TypeError("GradDrop has no coefficients of the complete gradients. Call `combine`.")

    def _combine(
        self, gradients: torch.Tensor, gramian: torch.Tensor, kept: torch.Tensor, rows: Sequence[int]
    ) -> torch.Tensor:
        leaks = torch.full((len(rows),), self.leak, device=gradients.device)
        return self._new_aggregator(leak=leaks)(gradients)


def _root(gramian: torch.Tensor) -> torch.Tensor:
    """Return a matrix R of the shape of the Gramian with R Rᵀ = G."""
    values, vectors = torch.linalg.eigh(gramian.double())
    return vectors * values.clamp(min=0.0).sqrt()


GRADIENT_METHODS: dict[str, type[GradientMethod]] = {
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "cagrad": CAGrad,
    "aligned-mtl": AlignedMTL,
    "upgrad": UPGrad,
    "nash-mtl": NashMTL,
    "imtl-g": IMTLG,
    "mgda": MGDA,
    "graddrop": GradDrop,
}
"""Name in a recipe -> gradient method."""


def build_gradient_method(
    name: str, tasks: Iterable[str], kwargs: Mapping[str, Any], *, every: int = 1
) -> GradientMethod:
    """Build a gradient method by its name.

    Args:
        name: a key of `GRADIENT_METHODS`.
        tasks: the names of all tasks.
        kwargs: the method's own parameters.
        every: the number of optimizer steps from one use of the method to the next.

    Raises:
        RecipeError: if there are fewer than two tasks, torchjd is not installed, or a parameter is not valid.
    """
    method, names = GRADIENT_METHODS[name], list(tasks)
    if len(names) < 2:
        raise RecipeError(
            f"loss.gradients: {name} combines the gradients of several tasks, and there is only one. Leave it out."
        )
    valid = tuple(inspect.signature(method).parameters)[1:]
    try:
        check_known(name, kwargs, valid, "loss.gradients_kwargs")
    except ValueError as error:
        raise RecipeError(str(error)) from error
    try:
        built = method(names, **kwargs)
    except ValueError as error:
        raise RecipeError(f"loss.gradients_kwargs.{error}") from error
    except ImportError as error:
        raise RecipeError(
            f'loss.gradients: {name} needs torchjd and its solvers: pip install "mtl_nlp[balancing]". ({error})'
        ) from error
    built.every = every
    return built
