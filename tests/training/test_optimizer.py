"""Learning rates of groups of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_splits import TASKS
from toy_weightings import Uncertainty, Watching

from mtl_nlp.balancing.gradnorm import GradNorm
from mtl_nlp.balancing.static import Static
from mtl_nlp.training.optimizer import check_weighting, include_weighting, set_learning_rate


def test_separate_learning_rate_keeps_the_other_settings_of_the_group():
    own, other, plain, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(4))
    groups = [{"params": [own, other], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.8, 0.9))
    set_learning_rate(optimizer, [own, plain, frozen], 1e-2)
    found = {
        id(parameter): (group["lr"], group["weight_decay"], group["betas"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        id(own): (1e-2, 0.1, (0.8, 0.9)),
        id(other): (1e-4, 0.1, (0.8, 0.9)),
        id(plain): (1e-2, 0.0, (0.8, 0.9)),
    }


def test_weighting_is_added_only_to_a_new_optimizer():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))], lr=1e-4, weight_decay=0.1)
    weighting = Uncertainty(["pos"])
    with pytest.raises(ValueError, match="should have the parameters of the loss weighting Uncertainty"):
        include_weighting(optimizer, weighting, 1e-3, is_new=False)
    include_weighting(optimizer, weighting, 1e-3, is_new=True)
    include_weighting(optimizer, weighting, 1e-3, is_new=False)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-4, 0.1), (1e-3, 0.0)]


@pytest.mark.parametrize("weighting", [Static({"pos": 1.0}), Watching(), Uncertainty(["pos"]).requires_grad_(False)])
def test_untrained_weighting_adds_no_group_and_allows_sharding(weighting):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))])
    include_weighting(optimizer, weighting, 1e-3, is_new=True)
    assert len(optimizer.param_groups) == 1
    check_weighting(weighting, is_sharded=True)


def test_trained_weighting_is_refused_with_a_sharded_model():
    check_weighting(Uncertainty(["pos"]), is_sharded=False)
    message = r"FSDP and DeepSpeed .* the loss weighting Uncertainty has trainable parameters"
    with pytest.raises(ValueError, match=message):
        check_weighting(Uncertainty(["pos"]), is_sharded=True)


def test_norms_of_gradients_are_refused_with_a_sharded_model():
    check_weighting(GradNorm(TASKS), is_sharded=False)
    with pytest.raises(ValueError, match=r"FSDP and DeepSpeed shard the weights whose gradients .* GradNorm measures"):
        check_weighting(GradNorm(TASKS), is_sharded=True)
