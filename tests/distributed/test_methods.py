"""Every loss weighting of the recipe on one and two processes, with accumulation and in resumed runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from launching import results_of

from mtl_nlp.balancing.registry import WEIGHTINGS

pytestmark = pytest.mark.slow

LEARNED = [name for name in WEIGHTINGS if name != "static"]


@pytest.fixture(scope="module")
def found(workers, tokenizers, tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """The results of methods_worker.py, by number of processes and rank."""
    folder = tmp_path_factory.mktemp("methods")
    tokenizers["wordpiece"].save_pretrained(folder / "tokenizer")
    runs = {n: results_of(workers, "methods_worker.py", n, str(folder / "tokenizer"), folder / f"{n}") for n in (1, 2)}
    assert {n: [rank["world_size"] for rank in ranks] for n, ranks in runs.items()} == {1: [1], 2: [2, 2]}
    return runs


def assert_equal(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    """Check that the tensors are equal to the last bit."""
    assert tensors.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("name", LEARNED)
def test_processes_and_accumulation_train_like_one_batch(found, name, processes, accumulation):
    reference, run = found[1][0][f"{name}-1"], found[processes][0][f"{name}-{accumulation}"]
    for entry, other in zip(run["logs"], reference["logs"], strict=True):
        shown = [key for key in other if key.startswith("weight_")]
        assert shown == [key for key in entry if key.startswith("weight_")]
        assert bool(shown) == (name != "log-classes")
        for key in (*shown, "loss"):
            assert entry[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5), key
    torch.testing.assert_close(run["state"], reference["state"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("run", ["1", "2", "whole", "resumed"])
@pytest.mark.parametrize("name", LEARNED)
def test_weighting_and_model_are_equal_in_both_processes(found, name, run):
    first, second = (rank[f"{name}-{run}"] for rank in found[2])
    assert_equal(first["state"], second["state"])
    assert_equal(first["weights"], second["weights"])


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", LEARNED)
def test_run_resumed_in_the_middle_of_an_epoch_ends_like_an_uninterrupted_run(found, name, processes):
    for rank in found[processes]:
        whole, resumed = rank[f"{name}-whole"], rank[f"{name}-resumed"]
        assert_equal(resumed["state"], whole["state"])
        assert_equal(resumed["weights"], whole["weights"])
        assert resumed["logs"] == whole["logs"]
