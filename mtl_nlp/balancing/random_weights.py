"""Random loss weighting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.scalarized import gradient_weights
from mtl_nlp.balancing.weighting import WeightingStep
from mtl_nlp.modeling.tasks_multitask import Task


class RandomWeights(ComparingWeighting):
    """New random weights in each step: w = T · softmax(ε) with ε ~ N(0, 1) for T tasks.

    The `Random` of torchjd draws the weights. Its weights sum to 1; the factor T gives them the sum of a plain sum. The
    weights are a function of the seed and the number of the step, so that they are equal in all processes and in a
    resumed run. The random state of the process does not change.

    When to use it: as a baseline. A method that does not beat random weights does not help.

    Source: Lin et al. 2022, Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning (RLW).

    Args:
        tasks: the tasks by name.
        seed: the seed; a recipe takes `training.seed` by default.

    Raises:
        ValueError: if there are fewer than two tasks, or the seed is negative.
    """

    values: torch.Tensor

    def __init__(self, tasks: Mapping[str, Task], seed: int = 42) -> None:
        from torchjd.scalarization import Random  # an optional package

        super().__init__(tasks)
        if seed < 0:
            raise ValueError(f"`seed` should be at least 0. Found {seed}.")
        self.seed = seed
        self.scalarizer = Random()
        self.register_buffer("values", torch.zeros(len(tasks)), persistent=False)

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        """Return the weights of this step."""
        (seed,) = np.random.SeedSequence([self.seed, step.number]).generate_state(1, np.uint64)
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(int(seed) >> 1)  # `torch.manual_seed` would also seed the device
            weights = gradient_weights(self.scalarizer, torch.zeros(len(self.tasks)))
        finally:
            torch.set_rng_state(before)
        weights = (len(self.tasks) * weights).to(self.values.device, non_blocking=True)
        return dict(zip(self.tasks, weights.unbind(), strict=True))
