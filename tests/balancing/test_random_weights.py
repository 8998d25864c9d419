from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchjd.scalarization import Random
from toy_splits import TASKS
from weighting_references import by_torchjd
from weighting_steps import NOTHING, numbers_of

from mtl_nlp.balancing.random_weights import RandomWeights


def drawn(number: int, seed: int = 3) -> dict[str, float]:
    return numbers_of(RandomWeights(TASKS, seed).weights(dataclasses.replace(NOTHING, number=number)))


def test_weights_are_those_of_torchjd_times_the_number_of_tasks():
    (seed,) = np.random.SeedSequence([3, 5]).generate_state(1, np.uint64)
    with torch.random.fork_rng([]):
        torch.manual_seed(int(seed) >> 1)
        expected = by_torchjd(Random(), [1.0] * 4)
    assert list(drawn(5).values()) == pytest.approx([4.0 * weight for weight in expected], rel=1e-6)


def test_weights_depend_on_the_seed_and_the_step_alone():
    assert drawn(5) == drawn(5)
    assert len({tuple(drawn(number, seed).values()) for number in range(5) for seed in range(5)}) == 25
    assert sum(drawn(5).values()) == pytest.approx(4.0)


def test_mean_of_the_weights_is_1():
    means = torch.tensor([[*drawn(number).values()] for number in range(2000)]).mean(0)
    assert means.tolist() == pytest.approx([1.0] * 4, abs=0.06)


def test_random_state_of_the_process_does_not_change():
    before = torch.get_rng_state()
    drawn(1)
    assert torch.equal(before, torch.get_rng_state())


def test_there_is_no_state_and_the_seed_is_not_negative():
    assert not RandomWeights(TASKS).state_dict()
    with pytest.raises(ValueError, match="`seed` should be at least 0"):
        RandomWeights(TASKS, seed=-1)
