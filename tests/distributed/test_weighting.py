"""Learned loss weightings on one and two processes, with accumulation and in resumed runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from launching import results_of
from toy_splits import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(workers, tokenizers, tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """The results of weighting_worker.py, by number of processes and rank."""
    folder = tmp_path_factory.mktemp("weighting")
    tokenizers["wordpiece"].save_pretrained(folder / "tokenizer")
    runs = {
        n: results_of(workers, "weighting_worker.py", n, str(folder / "tokenizer"), folder / f"{n}") for n in (1, 2)
    }
    assert {n: [rank["world_size"] for rank in ranks] for n, ranks in runs.items()} == {1: [1], 2: [2, 2]}
    return runs


def vector(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors) if tensors[name] is not None]).double()


def assert_equal(states: list[dict[str, torch.Tensor]], others: list[dict[str, torch.Tensor]]) -> None:
    """Check that the tensors are equal to the last bit."""
    for state, other in zip(states, others, strict=True):
        assert state.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in state.items())


WAYS = [(1, 2), (1, 4), (2, 1), (2, 2)]
"""Processes and micro-batches that a step of 32 rows is dealt out to."""


@pytest.mark.parametrize(("processes", "accumulation"), WAYS)
@pytest.mark.parametrize("kind", ["Uncertainty", "Attentive"])
def test_processes_and_accumulation_train_a_weighting_like_one_batch(found, kind, processes, accumulation):
    (reference,) = (rank[f"{kind}-1"] for rank in found[1])
    for rank in found[processes]:
        run = rank[f"{kind}-{accumulation}"]
        assert len(run["weighting_gradients"]) == len(run["states"]) == 4
        gradients, expected = (each["weighting_gradients"][0].double() for each in (run, reference))
        assert expected.all()
        assert (gradients - expected).norm() <= 2e-6 * expected.norm()
        gradients, expected = (vector(each["gradients"][0]) for each in (run, reference))
        assert (gradients - expected).norm() <= 1e-6 * expected.norm()
        for state, other in zip(run["states"], reference["states"], strict=True):
            torch.testing.assert_close(state, other, rtol=1e-4, atol=1e-6)
    entries = zip(found[processes][0][f"{kind}-{accumulation}"]["logs"], reference["logs"], strict=True)
    for entry, other in entries:
        assert {key for key in entry if key.startswith("weight_")} == {
            key for key in other if key.startswith("weight_")
        }
        for key in (key for key in other if key.startswith(("loss", "weight_"))):
            assert entry[key] == pytest.approx(other[key], rel=1e-5), key


@pytest.mark.parametrize("run", ["Uncertainty-1", "Attentive-1", "Attentive-2", "whole-2", "resumed-2"])
def test_weighting_and_model_are_equal_in_both_processes(found, run):
    first, second = (rank[run] for rank in found[2])
    assert_equal(first["states"], second["states"])
    assert_equal(first["weights"], second["weights"])


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_resumed_run_with_a_learned_weighting_ends_like_an_uninterrupted_run(found, processes, accumulation):
    for rank in found[processes]:
        whole, resumed = rank[f"whole-{accumulation}"], rank[f"resumed-{accumulation}"]
        assert len(resumed["states"]) == 2
        assert_equal(resumed["states"], whole["states"][2:])
        assert_equal(resumed["weights"], whole["weights"][2:])
        assert resumed["logs"] == whole["logs"]
        moved = whole["states"][3]["log_variances"] - whole["states"][1]["log_variances"]
        assert moved.all(), "the weighting was not trained"
    assert all(f"weight_{task}" in found[1][0][f"whole-{accumulation}"]["logs"][0] for task in TASKS)
