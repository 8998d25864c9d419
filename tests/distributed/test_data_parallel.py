"""Training and evaluation on 2 and 3 processes give the results of one process."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import torch
from builders import EVALUATED_ROWS, PULL
from launching import results_of
from toy_splits import TASKS

pytestmark = pytest.mark.slow

TOPIC = [*TASKS].index("topic")


@pytest.fixture(scope="module")
def found(workers, tokenizers, tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """The results of train_worker.py, by number of processes and rank."""
    folder = tmp_path_factory.mktemp("data_parallel")
    tokenizers["wordpiece"].save_pretrained(folder / "tokenizer")
    return {
        n: results_of(workers, "train_worker.py", n, str(folder / "tokenizer"), folder / f"{n}_processes")
        for n in (1, 2, 3)
    }


def runs_of(found: dict[int, list[dict[str, Any]]], processes: int, name: str) -> list[dict[str, Any]]:
    """Return a training by rank, after checks of the number of processes and of their equal weights."""
    ranks = [rank[name] for rank in found[processes]]
    assert [rank["world_size"] for rank in found[processes]] == [processes] * processes
    assert [run["world_size"] for run in ranks] == [processes] * processes
    assert all(run["wrapped"] == (processes > 1) for run in ranks)
    for run in ranks[1:]:
        for own, others in zip(run["weights"], ranks[0]["weights"], strict=True):
            assert all(torch.equal(value, others[name]) for name, value in own.items())
    return ranks


def vector(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return all tensors as one vector; None, the gradient of a frozen parameter, is left out."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors) if tensors[name] is not None]).double()


def assert_same_training(run: dict[str, Any], reference: dict[str, Any]) -> None:
    """Check that first gradients and losses are equal to 1e-6, and the changes of the weights to 3e-5."""
    gradients, expected = (vector(each["gradients"][0]) for each in (run, reference))
    assert (gradients - expected).norm() <= 1e-6 * expected.norm()
    losses = [[entry["loss"] for entry in each["logs"]] for each in (run, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    weights, expected = (vector(each["weights"][-1]) for each in (run, reference))
    assert len(run["weights"]) == len(reference["weights"]) >= 3
    assert (weights - expected).norm() <= 3e-5 * (expected - vector(reference["start"])).norm()


WAYS = [(1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)]
"""Processes and micro-batches that a step of 32 rows is dealt out to."""


@pytest.mark.parametrize("checkpointing", ["", "-checkpointing"])
@pytest.mark.parametrize(("processes", "accumulation"), WAYS)
def test_processes_and_accumulation_reproduce_one_batch(found, processes, accumulation, checkpointing):
    (reference,) = runs_of(found, 1, "given-1")
    for run in runs_of(found, processes, f"given-{accumulation}{checkpointing}"):
        assert run["checkpointing"] == bool(checkpointing)
        assert_same_training(run, reference)


@pytest.mark.parametrize("processes", [2, 3])
def test_weighted_losses_of_several_processes_reproduce_one_process(found, processes):
    (reference,) = runs_of(found, 1, "given-1-weighted")
    assert_same_training(runs_of(found, processes, "given-1-weighted")[0], reference)


def test_processes_of_these_trainings_have_unequal_rows_labels_and_tasks(found):
    runs = {n: runs_of(found, n, "given-1") for n in (1, 2, 3)}
    assert [run["sizes"][0] for run in runs[1] + runs[2] + runs[3]] == [32, 16, 16, 11, 11, 10]
    for processes, of_topic, of_score in ((2, [6, 0], [0, 10]), (3, [6, 0, 0], [0, 0, 10])):
        rows = [run["task_rows"][0] for run in runs[processes]]
        assert [count["topic"] for count in rows] == of_topic
        assert [count["score"] for count in rows] == of_score
        assert len({count["ner"] for count in rows}) > 1


@pytest.mark.parametrize("checkpointing", ["", "-checkpointing"])
@pytest.mark.parametrize("processes", [2, 3])
def test_no_process_searches_for_unused_parameters(found, processes, checkpointing):
    for run in runs_of(found, processes, f"given-1{checkpointing}"):
        assert run["find_unused_parameters"] is False


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), *WAYS])
def test_head_unused_by_all_processes_is_not_moved(found, processes, accumulation):
    for run in runs_of(found, processes, f"given-{accumulation}"):
        history = [run["start"], *run["weights"]]
        for name in (name for name in run["start"] if name.startswith("heads.")):
            moved = [not torch.equal(before[name], after[name]) for before, after in itertools.pairwise(history)]
            assert moved == ([True, False, False] if name.startswith(f"heads.{TOPIC}.") else [True] * 3)


@pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
@pytest.mark.parametrize(("processes", "rows"), [(2, 32), (3, 33)])
def test_several_processes_take_the_steps_of_one_process_with_equal_rows(found, processes, rows, batching):
    name = f"mixture-{rows}-{batching}"
    (reference,), runs = runs_of(found, 1, name), runs_of(found, processes, name)
    steps = [sorted(itertools.chain(*batches)) for batches in zip(*(run["fetched"] for run in runs), strict=True)]
    assert steps == [sorted(batch) for batch in reference["fetched"]]
    assert_same_training(runs[0], reference)


def test_bfloat16_training_on_two_processes_is_close_to_one_process(found):
    (single,), (reference,) = (runs_of(found, 1, f"mixture-32-{kind}") for kind in ("single", "bf16"))
    start, end = vector(reference["start"]), vector(reference["weights"][-1])
    assert (end - vector(single["weights"][-1])).norm() > 1e-4 * (end - start).norm(), "not in bfloat16"
    for run in runs_of(found, 2, "mixture-32-bf16"):
        assert (vector(run["weights"][-1]) - end).norm() <= 0.03 * (end - start).norm()
        for logs, key in (("logs", "loss"), ("evaluations", "eval_loss")):
            values, expected = ([entry[key] for entry in each[logs]] for each in (run, reference))
            assert len(values) >= 2
            assert values == pytest.approx(expected, rel=0.01)


# Adapters


def adapters_moved(run: dict[str, Any]) -> dict[str, list[bool]]:
    """Return for each adapter whether each step moved it; check that a step moves all of its parameters or none."""
    history = [run["start"], *run["weights"]]
    moved: dict[str, list[bool]] = {}
    for name in (name for name in run["start"] if "lora_" in name):
        adapter = re.search(r"lora_\w+\.(?:task_)?(\w+)", name)[1]
        of_one = [not torch.equal(before[name], after[name]) for before, after in itertools.pairwise(history)]
        assert moved.setdefault(adapter, of_one) == of_one, name
    return moved


def spread_of(weights: dict[str, torch.Tensor]) -> float:
    """Return Σ_layers Σ_t ‖ΔW_t − mean ΔW‖² of the three tasks with adapters, computed from every ΔW."""
    layers: dict[str, list[torch.Tensor]] = {}
    for name in (name for name in weights if ".lora_A.task_" in name):
        layer, _, adapter = name.partition(".lora_A.")
        layers.setdefault(layer, []).append(2.0 * weights[f"{layer}.lora_B.{adapter}"] @ weights[name])  # alpha is 2 r
    total = 0.0
    for changes in layers.values():
        changes += [torch.zeros_like(changes[0])] * (3 - len(changes))
        total += ((torch.stack(changes) - torch.stack(changes).mean(0)) ** 2).sum().item()
    return total


ADAPTERS = ["adapters", "adapters-pull", "frozen", "frozen-checkpointing"]


@pytest.mark.parametrize(
    ("name", "processes", "accumulation"),
    [
        *((name, *way) for name in ADAPTERS for way in [(1, 3), (2, 1), (2, 2), (3, 1)]),
        *(("adapters-checkpointing", n, 1) for n in (1, 2, 3)),
        *((name, 2, 1) for name in ("dora", "dora-checkpointing")),
    ],
)
def test_adapters_learn_equally_on_processes_micro_batches_and_one_batch(found, name, processes, accumulation):
    (reference,) = runs_of(found, 1, f"{name.removesuffix('-checkpointing')}-1")
    for run in runs_of(found, processes, f"{name}-{accumulation}"):
        assert run["find_unused_parameters"] is False
        assert run["checkpointing"] == name.endswith("-checkpointing")
        assert_same_training(run, reference)
        plain = [name for name in run["start"] if name.startswith("encoder.") and "lora_" not in name]
        moved = [not torch.equal(run["start"][name], run["weights"][-1][name]) for name in plain]
        assert not any(moved) if "frozen" in name else all(moved)


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_unused_by_all_processes_is_moved_by_the_pull_only(found, name, processes, accumulation):
    topic = [True, True, True] if name == "adapters-pull" else [True, False, False]
    for run in runs_of(found, processes, f"{name}-{accumulation}"):
        assert adapters_moved(run) == {
            "shared": [True] * 3, "ner": [True] * 3, "topic": topic, "score": [True] * 3
        }  # fmt: skip


@pytest.mark.parametrize(("processes", "rows"), [(2, 32), (3, 33)])
@pytest.mark.parametrize("batching", ["homogeneous", "mixed"])
def test_adapters_learn_from_the_mixture_equally_on_several_processes(found, processes, rows, batching):
    name = f"adapters-mixture-{rows}-{batching}"
    (reference,) = runs_of(found, 1, name)
    assert_same_training(runs_of(found, processes, name)[0], reference)


@pytest.mark.parametrize(("processes", "rows"), [(1, 32), (2, 32), (3, 33)])
def test_step_of_one_dataset_moves_only_the_adapters_of_its_tasks(found, processes, rows):
    for run in runs_of(found, processes, f"adapters-mixture-{rows}-homogeneous"):
        used = {task: [f"loss_{task}" in entry for entry in run["logs"]] for task in ("ner", "topic", "score")}
        assert [True] * 5 not in used.values()
        assert adapters_moved(run) == {"shared": [True] * 5, **used}


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_pull_enters_the_loss_and_the_log_once_per_step(found, processes, accumulation):
    without, run = (runs_of(found, processes, f"{name}-{accumulation}")[0] for name in ("adapters", "adapters-pull"))
    pulls = [PULL * spread_of(weights) for weights in (run["start"], *run["weights"][:-1])]
    assert pulls[0] > 0.1 * without["logs"][0]["loss"]
    assert [entry["pull"] for entry in run["logs"]] == pytest.approx(pulls, rel=1e-5)
    assert run["logs"][0]["loss"] == pytest.approx(without["logs"][0]["loss"] + pulls[0], rel=1e-5)
    assert all(f"loss_{task}" in run["logs"][0] for task in TASKS)
    for task in TASKS:
        assert run["logs"][0][f"loss_{task}"] == pytest.approx(without["logs"][0][f"loss_{task}"], rel=1e-6)
    assert not any("pull" in entry for entry in without["logs"])


@pytest.mark.parametrize(("processes", "rows"), [(1, 32), (1, 33), (2, 32), (3, 33)])
def test_logged_pull_is_the_mean_over_several_steps(found, processes, rows):
    run = runs_of(found, processes, f"adapters-mixture-{rows}-mixed")[0]
    pulls = [PULL * spread_of(weights) for weights in (run["start"], *run["weights"])]
    expected = [(pulls[0] + pulls[1]) / 2, (pulls[2] + pulls[3]) / 2]
    assert [entry["pull"] for entry in run["logs"]] == pytest.approx(expected, rel=1e-5)


# The log


@pytest.mark.parametrize(("processes", "accumulation", "micro_batches"), [(2, 1, 2), (2, 2, 4), (3, 1, 3)])
def test_logged_losses_and_padding_equal_those_of_one_process(found, processes, accumulation, micro_batches):
    (reference,) = runs_of(found, 1, f"given-{micro_batches}")
    run = runs_of(found, processes, f"given-{accumulation}")[0]
    expected = [{"loss_pos", "loss_ner", "loss_score"} | ({"loss_topic"} if step == 0 else set()) for step in range(3)]
    for entry, other, losses in zip(run["logs"], reference["logs"], expected, strict=True):
        assert {key for key in entry if key.startswith("loss_")} == losses
        for key in (*losses, "loss", "padding"):
            assert entry[key] == pytest.approx(other[key], rel=1e-6), key


@pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
@pytest.mark.parametrize(("processes", "rows"), [(1, 33), (2, 32), (3, 33)])
def test_logs_of_several_steps_cover_all_processes(found, processes, rows, batching):
    name = f"mixture-{rows}-{batching}"
    (reference,), runs = runs_of(found, 1, name), runs_of(found, processes, name)
    assert len(runs[0]["logs"]) == 2
    for number, (entry, other) in enumerate(zip(runs[0]["logs"], reference["logs"], strict=True)):
        losses = {key for key in entry if key.startswith("loss_")}
        assert losses == {key for key in other if key.startswith("loss_")} != set()
        assert [entry[key] for key in sorted(losses)] == pytest.approx([other[key] for key in sorted(losses)], rel=1e-6)
        lengths = runs[0]["lengths"]
        batches = [
            [lengths[row] for row in batch] for run in runs for batch in run["fetched"][2 * number : 2 * number + 2]
        ]
        places = sum(max(batch) * len(batch) for batch in batches)
        assert entry["padding"] == pytest.approx(1 - sum(map(sum, batches)) / places, rel=1e-6)


# Rows


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_fetched_once_per_epoch_by_one_process(found, processes):
    runs = runs_of(found, processes, "epochs")
    counts = {len(run["fetched"]) for run in runs}
    assert len(counts) == 1
    steps = counts.pop() // 2
    for epoch in (slice(steps), slice(steps, None)):
        shares = [sorted(itertools.chain(*run["fetched"][epoch])) for run in runs]
        assert sorted(itertools.chain(*shares)) == list(range(73))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# Evaluation


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("split", [*map(str, EVALUATED_ROWS), "two"])
def test_evaluation_and_prediction_equal_one_process_to_the_last_digit(found, processes, split):
    (reference,) = (rank["evaluation"] for rank in found[1])
    for rank in found[processes]:
        assert rank["world_size"] == rank["evaluation"]["world_size"] == processes
        for what in ("metrics", "predictions", "lines"):
            assert json.dumps(rank["evaluation"][what][split]) == json.dumps(reference[what][split])
    metrics = reference["metrics"][split]
    assert {"eval_loss", "eval_mtl_score", *(f"eval_{task}_loss" for task in ("pos", "ner", "score"))} <= set(metrics)


def test_predictions_match_rows_and_words_in_number_and_order(found):
    for processes, ranks in found.items():
        for rank in ranks:
            assert rank["world_size"] == processes
            predictions = rank["evaluation"]["predictions"]
            for rows in EVALUATED_ROWS:
                assert {len(answers) for answers in predictions[str(rows)]["d"].values()} == {rows}
            words = [len(row) for row in predictions["17"]["d"]["pos"]]
            assert words == [9, 150, 1, 60, 30, 2, 70, 5, 5, 8, 20, 3, 12, 7, 90, 4, 6]
