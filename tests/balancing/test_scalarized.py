from __future__ import annotations

import torch
from torchjd.scalarization import IMTLL, STCH, GeometricMean

from mtl_nlp.balancing.scalarized import gradient_weights

LOSSES = torch.tensor([0.5, 2.0, 1.0])


def test_loss_with_the_weights_has_the_gradient_of_the_scalarizer():
    for scalarizer in (STCH(0.3), GeometricMean()):
        x = torch.tensor([0.1, 0.7], requires_grad=True)
        losses = torch.stack([x.sum(), (x**2).sum() + 1, x.prod() + 2])
        (expected,) = torch.autograd.grad(scalarizer(losses), x, retain_graph=True)
        weights = gradient_weights(scalarizer, losses)
        assert not weights.requires_grad
        torch.testing.assert_close(torch.autograd.grad(weights @ losses, x)[0], expected)


def test_learned_weights_have_a_graph_to_the_parameters_also_without_gradients_outside():
    scalarizer = IMTLL(3)
    with torch.no_grad():
        weights = gradient_weights(scalarizer, LOSSES, is_learned=True)
    weights.sum().backward()
    assert scalarizer.log_scale.grad.tolist() == [1.0, 1.0, 1.0]
