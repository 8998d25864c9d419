"""FSDP2 on two processes that hold rows of different tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from launching import results_of


@pytest.fixture(scope="module")
def found(workers, tokenizers, tmp_path_factory) -> list[dict[str, Any]]:
    """The results of fsdp_worker.py, by rank."""
    folder = tmp_path_factory.mktemp("fully_sharded")
    tokenizers["wordpiece"].save_pretrained(folder / "tokenizer")
    ranks = results_of(workers, "fsdp_worker.py", 2, str(folder / "tokenizer"), folder / "2_processes")
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    return ranks


def vector(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)]).double()


def assert_close(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float) -> None:
    assert tensors.keys() == expected.keys()
    assert (vector(tensors) - vector(expected)).norm() <= relative * vector(expected).norm()


def test_processes_hold_different_tasks(found):
    tasks = [[{task for task, rows in step.items() if rows} for step in rank["task_rows"]] for rank in found]
    words, texts = {"pos", "ner"}, {"topic", "score"}
    assert tasks == [[words, texts, words], [texts, words, words]]


@pytest.mark.parametrize(
    ("variant", "relative"),
    [("sharded", 1e-5), ("root too after forward", 1e-5), ("checkpointing", 1e-5), ("bf16", 0.05)],
)
@pytest.mark.parametrize("model", ["plain", "adapters", "frozen"])
def test_sharded_training_reproduces_one_process(found, model, variant, relative):
    for rank in found:
        run, reference = rank[f"{model}, {variant}"], rank["one process"][model]
        assert run["all_sharded"]
        assert run["own_elements"] < 0.6 * run["elements"]
        for gradients, expected in zip(run["gradients"], reference["gradients"], strict=True):
            assert_close(gradients, expected, relative)
        assert_close(run["weights"], reference["weights"], relative)


@pytest.mark.parametrize("name", ["plain", "adapters", "pull"])
def test_mean_loss_of_sharded_processes_equals_that_of_one_process(found, name):
    both = torch.tensor([rank["pull" if name == "pull" else f"{name}, sharded"]["losses"] for rank in found]).mean(0)
    torch.testing.assert_close(both, torch.tensor(found[0]["one process"][name]["losses"]))


def test_pull_of_sharded_adapters_equals_that_of_one_process(found):
    for rank in found:
        for gradients, expected in zip(
            rank["pull"]["gradients"], rank["one process"]["pull"]["gradients"], strict=True
        ):
            assert_close(gradients, expected, 1e-5)
        assert_close(rank["pull"]["weights"], rank["one process"]["pull"]["weights"], 1e-5)
    assert found[0]["one process"]["pull"]["losses"][0] > 1.1 * found[0]["one process"]["adapters"]["losses"][0]


@pytest.mark.parametrize("name", ["plain", "adapters"])
def test_sharded_evaluation_equals_unsharded_evaluation_with_unequal_batches(found, name):
    plain, sharded = ([rank[f"evaluation, {name}, {shard}"] for rank in found] for shard in (False, True))
    assert [run["world_size"] for run in plain + sharded] == [2] * 4
    assert all(run["all_sharded"] for run in sharded)
    assert not any(run["all_sharded"] for run in plain)
    assert sorted(run["passes"] for run in plain) == sorted(run["batches"] for run in sharded) == [1, 2]
    assert [run["passes"] for run in sharded] == [2, 2]
    for run in sharded:
        assert run["predictions"] == plain[0]["predictions"]
        assert run["metrics"] == pytest.approx(plain[0]["metrics"], rel=1e-6)
    assert len({word for row in plain[0]["predictions"]["pos"] for word in row}) > 1


def test_gradient_that_overflows_in_one_shard_reaches_no_weight(found):
    for rank in found:
        assert rank["divergence"]["finite"]["read"] is None
        assert rank["divergence"]["finite"]["moved"] > 0
        assert all(each["is_finite"] for each in rank["divergence"].values())
        assert rank["divergence"]["diverged"]["read"] == (0, [], False, [0])
