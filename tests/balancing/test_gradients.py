from __future__ import annotations

import pytest
import torch
from toy_gradient_methods import PlainSum
from trainers import adapted_model, build_model

from mtl_nlp.balancing.gradients import check_number, normalised, own_parameters, seed_of, shared_parameters


def test_seeds_differ_between_steps_and_trainings():
    seeds = {seed_of(seed, step) for seed in (0, 1, 42) for step in range(100)}
    assert len(seeds) == 300
    assert seed_of(-1, 3) >= 0


def test_normalised_gramian_has_a_mean_diagonal_of_one():
    gramian = torch.tensor([[4e-12, 1e-12], [1e-12, 2e-12]])
    torch.testing.assert_close(normalised(gramian), gramian / 3e-12)


@pytest.mark.parametrize("value", [True, "1", float("inf"), float("nan"), -0.1, 1.1])
def test_numbers_outside_of_their_range_are_refused(value):
    with pytest.raises(ValueError, match=r"^beta: should be a number from 0 to 1\. Found "):
        check_number("beta", value, 0.0, 1.0)


def test_plain_sum_is_the_sum():
    gradients = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found = PlainSum("abc").combine(gradients, gradients @ gradients.T, [0, 1, 2])
    torch.testing.assert_close(found, gradients.sum(dim=0))


def test_every_trained_parameter_is_shared_or_belongs_to_one_task():
    for model in (build_model(), adapted_model()):
        groups = [shared_parameters(model), *(own_parameters(model, task) for task in model.tasks)]
        parameters = [parameter for group in groups for parameter in group]
        assert len(set(parameters)) == len(parameters)
        assert set(parameters) == set(model.parameters())


def test_frozen_encoder_shares_only_its_shared_adapter():
    model = adapted_model()
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    names = {name for name, each in model.encoder.named_parameters() if each in set(shared_parameters(model))}
    assert names
    assert all(".shared." in name for name in names)
