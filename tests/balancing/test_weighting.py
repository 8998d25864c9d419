from __future__ import annotations

import pytest
import torch
from toy_weightings import Attentive, Uncertainty, Watching

from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts

STEP = WeightingStep(StepCounts(0, {}, {}), {})


@pytest.mark.parametrize("needs", [{"gradient_norm"}, {"losses", "lossses"}])
def test_weighting_class_with_an_unknown_need_is_refused_at_definition(needs):
    body = {"needs": frozenset(needs), "weights": lambda self, step: {}}
    unknown = (needs - {"losses"}).pop()
    with pytest.raises(
        ValueError, match=rf"`New\.needs` should hold names of \['gradient_norms', .*\]\. Found {unknown}"
    ):
        type("New", (LossWeighting,), body)


def test_weighting_without_weights_cannot_be_instantiated():
    with pytest.raises(TypeError, match="abstract"):
        type("New", (LossWeighting,), {})()


@pytest.mark.parametrize(
    ("weighting", "watches"),
    [(Static(), False), (Uncertainty(["a"]), False), (Attentive(["a"]), True), (Watching(), True)],
)
def test_only_weightings_that_read_losses_watch_losses(weighting, watches):
    assert weighting.watches_losses() is watches


def test_penalty_is_zero_by_default():
    assert Watching().penalty(STEP) == 0.0
    assert Uncertainty(["a", "b", "c"]).penalty(STEP).item() == pytest.approx(0.0)
    torch.testing.assert_close(Uncertainty(["a"]).penalty(STEP).detach(), torch.tensor(-0.25))
