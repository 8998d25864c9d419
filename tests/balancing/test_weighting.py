from __future__ import annotations

import pytest
import torch
from toy_weightings import Attentive, Uncertainty, Watching

from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.weighting import LossWeighting


@pytest.mark.parametrize("needs", [{"gradient_norms"}, {"second_forward"}, {"losses", "lossses"}])
def test_a_weighting_that_needs_an_unknown_measurement_is_refused_when_it_is_defined(needs):
    body = {"needs": frozenset(needs), "weights": lambda self, step: {}}
    unknown = (needs - {"losses"}).pop()
    with pytest.raises(ValueError, match=rf"`New\.needs` should hold names of \['losses'\]\. Found {unknown}"):
        type("New", (LossWeighting,), body)


def test_a_weighting_without_weights_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        type("New", (LossWeighting,), {})()


@pytest.mark.parametrize(
    ("weighting", "watches"),
    [(Static(), False), (Uncertainty(["a"]), False), (Attentive(["a"]), True), (Watching(), True)],
)
def test_only_weightings_that_read_losses_pay_for_them(weighting, watches):
    assert weighting.watches_losses() is watches


def test_the_penalty_is_zero_unless_there_is_one():
    assert Watching().penalty() == 0.0
    assert Uncertainty(["a", "b", "c"]).penalty().item() == pytest.approx(0.0)
    torch.testing.assert_close(Uncertainty(["a"]).penalty().detach(), torch.tensor(-0.25))
