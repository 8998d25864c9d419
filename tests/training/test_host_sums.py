from __future__ import annotations

import torch

from mtl_nlp.training.host_sums import HostSums


def test_one_process_has_the_sums_at_once():
    numbers = [1.5, 2.0]
    end = HostSums(torch.device("cpu"), 1).begin(numbers)
    assert end() == numbers
