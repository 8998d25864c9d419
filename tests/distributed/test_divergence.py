"""A loss or gradient that overflows in one process ends the run in all processes, at the same step."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from launching import results_of
from toy_splits import BAD_ROW

pytestmark = pytest.mark.slow

RUNS = ["loss", "saving", "no-log", "adapters", "weighting", "gradient"]


@pytest.fixture(scope="module")
def found(workers, tokenizers, tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """The results of diverging_worker.py, by number of processes and rank."""
    folder = tmp_path_factory.mktemp("diverging")
    tokenizers["wordpiece"].save_pretrained(folder / "tokenizer")
    return {
        n: results_of(workers, "diverging_worker.py", n, str(folder / "tokenizer"), folder / f"{n}") for n in (1, 2)
    }


def step_of(message: str) -> int:
    match = re.match(r"Training has diverged: at step (\d+), ", message)
    assert match is not None, message
    return int(match[1])


@pytest.mark.parametrize("run", RUNS)
def test_processes_end_with_one_error_at_the_same_step_and_equal_weights(found, run):
    first, second = (rank[run] for rank in found[2])
    assert first["message"] == second["message"] != ""
    assert first["steps"] == second["steps"]
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert all(value.isfinite().all() for value in first["weights"].values())


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("run", RUNS)
def test_weights_are_those_before_the_step(found, processes, run):
    for rank in found[processes]:
        step = step_of(rank[run]["message"])
        before = rank[run]["before"][step - 2] if step > 1 else rank[run]["start"]
        assert all(torch.equal(value, before[name]) for name, value in rank[run]["weights"].items())


@pytest.mark.parametrize("processes", [1, 2])
def test_message_names_the_rows_of_the_process_whose_loss_overflowed(found, processes):
    for run in ("loss", "saving", "adapters", "weighting"):
        message = found[processes][0][run]["message"]
        assert f"the loss of task 'score' became infinite or NaN. The step had row {BAD_ROW} of d/train." in message
    message = found[processes][0]["no-log"]["message"]
    assert "the loss of task 'score' became infinite or NaN. The step had rows " in message
    assert re.search(rf"\b{BAD_ROW}\b", message.split("rows ")[1].split(" of d/train")[0])
    message = found[processes][0]["gradient"]["message"]
    assert "at step 3, the gradient became infinite or NaN, although the loss of every task was finite." in message
    assert ("rows" if processes == 2 else "row") in message.split("The step had ")[1].split()[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_last_checkpoint_is_from_the_step_before(found, processes):
    for rank in found[processes]:
        step = step_of(rank["saving"]["message"])
        assert rank["saving"]["steps"] == step
        assert set(rank["saving"]["checkpoints"]) == {f"checkpoint-{number}" for number in range(1, step)}


@pytest.mark.parametrize("processes", [1, 2])
def test_run_ends_at_the_next_log(found, processes):
    for rank in found[processes]:
        assert rank["loss"]["steps"] == -(-step_of(rank["loss"]["message"]) // 6) * 6
        assert rank["gradient"]["steps"] == 4


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("run", ["loss", "accumulated", "adapters", "weighting", "gradient"])
def test_skips_are_counted_and_the_processes_stay_equal(found, processes, run):
    for rank in found[processes]:
        assert rank[f"skip {run}"]["message"] == ""
        assert rank[f"skip {run}"]["skipped"] == ({"gradient": 1} if run == "gradient" else {"score": 2})
    first = found[processes][0][f"skip {run}"]
    for rank in found[processes]:
        assert all(torch.equal(value, rank[f"skip {run}"]["weights"][name]) for name, value in first["weights"].items())
    assert all(value.isfinite().all() for value in first["weights"].values())


@pytest.mark.parametrize("processes", [1, 2])
def test_ten_skips_in_a_row_end_the_run_in_all_processes(found, processes):
    for rank in found[processes]:
        assert (
            "at step 10, the loss of task 'score' became infinite or NaN. The step had " in rank["skip ten"]["message"]
        )
        assert "10 steps in a row were skipped for this reason." in rank["skip ten"]["message"]
        assert rank["skip ten"]["steps"] == 9
