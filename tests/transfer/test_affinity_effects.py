from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_nlp.transfer.affinity_effects import HELPS, HURTS, UNCLEAR, Effect, counted_matrix, effects_of, mean_effect


def test_an_effect_is_beyond_chance_if_its_interval_leaves_zero_out():
    assert mean_effect([0.9, 1.0, 1.1, 1.0, 1.0]).word == HELPS
    assert mean_effect([-0.9, -1.0, -1.1, -1.0, -1.0]).word == HURTS
    noise = mean_effect([1.0, -1.0, 1.0, -1.0, 0.5])
    assert (noise.word, noise.counted) == (UNCLEAR, 0.0)


def test_the_interval_is_students_t_over_the_defined_measurements():
    effect = mean_effect([1.0, 2.0, math.nan, 3.0, 4.0, 5.0])
    assert effect.value == 3.0
    assert effect.high - effect.value == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    assert mean_effect([1.0, math.nan]) == Effect(1.0)
    assert mean_effect([math.nan]) == Effect(None)


def test_only_effects_beyond_chance_count():
    measured = (
        np.array([[[5.0, 1.0], [sign, 5.0]] for sign in (1.0, -1.0) * 5]) + np.linspace(0, 0.1, 10)[:, None, None]
    )
    effects = effects_of(["a", "b"], measured)
    assert effects["a"]["a"].value == pytest.approx(5.05)
    assert counted_matrix(["a", "b"], effects) == pytest.approx(np.array([[0.0, 1.05], [0.0, 0.0]]))
