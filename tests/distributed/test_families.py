"""Every supported family trains on two processes, although DDP waits for a gradient of every parameter."""

from __future__ import annotations

import math

import pytest
import torch
from families import FAMILIES
from launching import results_of

pytestmark = pytest.mark.slow


def test_every_family_trains_on_two_processes(workers, tokenizers, tmp_path):
    tokenizers["wordpiece"].save_pretrained(tmp_path / "tokenizer")
    ranks = results_of(workers, "families_worker.py", 2, str(tmp_path / "tokenizer"), tmp_path / "2", timeout=1800)
    assert list(ranks[0]) == list(ranks[1]) == list(FAMILIES)
    for family, run in ranks[0].items():
        assert run["wrapped"] and not run["find_unused_parameters"], family
        assert run["without_gradient"] == [], family
        assert run["moved"] and len(run["losses"]) == 2 and all(map(math.isfinite, run["losses"])), family
        others = ranks[1][family]["weights"]
        assert all(torch.equal(weight, others[name]) for name, weight in run["weights"].items()), family
