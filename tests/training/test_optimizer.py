"""Learning rates of groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from mtl_nlp.training.optimizer import set_learning_rate


def test_some_parameters_have_their_own_rate_and_keep_all_else_of_their_group():
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
