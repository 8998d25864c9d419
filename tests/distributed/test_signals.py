"""Runs that get SIGTERM or Ctrl-C, or lose a worker of the data loader, and resume with `--resume`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from workshop import CASES, Started, after, assert_same_run, while_writing

from mtl_nlp.training.completeness import checkpoint_problem, last_checkpoint

pytestmark = pytest.mark.slow

WITHOUT_LAST = ("training.load_best_model_at_end=false", "training.early_stopping_patience=null")
BY_SIGTERM, BY_CTRL_C = "mtl-nlp: ended by SIGTERM. ", "mtl-nlp: ended by Ctrl-C. "


def saved_step(output: Path) -> int:
    return int(last_checkpoint(output).path.name.removeprefix("checkpoint-"))


def advice(output: Path) -> str:
    return f"The last complete checkpoint is {last_checkpoint(output).path}. To continue, add --resume."


def has_complete(output: Path) -> bool:
    return any(checkpoint_problem(path) is None for path in output.glob("checkpoint-*"))


def more_steps(output: Path, reference: Path) -> list[int]:
    """Return the steps of the checkpoints that the reference does not have."""
    names = {path.name for path in output.glob("checkpoint-*")} - {path.name for path in reference.glob("checkpoint-*")}
    return [int(name.removeprefix("checkpoint-")) for name in names]


# SIGTERM during training


@pytest.mark.parametrize(("processes", "ranks"), [(1, ()), (2, ()), (2, (0,)), (2, (1,))])
def test_sigterm_saves_a_checkpoint_and_the_resumed_run_is_equal(workshop, output, processes, ranks):
    reference = workshop.reference("mixed", processes)
    started = workshop.start_until(after(4), output, processes=processes)
    started.signal(signal.SIGTERM, *ranks)
    line = started.end().line(143, BY_SIGTERM)
    step = saved_step(output)
    assert 5 <= step <= 8
    assert line == BY_SIGTERM + advice(output)
    assert not (output / "model.safetensors").exists()
    ended = workshop.train(output, processes=processes, resume=True)
    assert ended.notes == [f"resuming from checkpoint-{step}"]
    assert_same_run(output, reference, *more_steps(output, reference))


@pytest.mark.parametrize("case", ["a worker", "streamed by a worker", "adapters", "saved at the epoch's border"])
def test_run_stopped_again_and_again_ends_like_an_uninterrupted_run(workshop, output, case):
    reference = workshop.reference(case)
    for number in range(3):
        started = workshop.start_until(after(1 + 6 * number), output, *CASES[case], resume=number > 0)
        started.signal(signal.SIGTERM)
        assert started.end().line(143, BY_SIGTERM) == BY_SIGTERM + advice(output)
    workshop.train(output, *CASES[case], resume=True)
    assert_same_run(output, reference, *more_steps(output, reference))


EPOCHS = ("training.eval_strategy=epoch", "training.save_strategy=epoch")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("strategy", [EPOCHS, ("training.save_strategy=best",), ("training.save_total_limit=1",)])
def test_sigterm_respects_the_strategies_of_evaluation_and_saving(workshop, output, tmp_path, strategy, processes):
    workshop.train(tmp_path / "reference", *strategy, processes=processes)
    for step in (2, 6, 10):
        started = workshop.start_until(after(step), output, *strategy, processes=processes, resume=step > 2)
        started.signal(signal.SIGTERM)
        assert started.end().line(143, BY_SIGTERM) == BY_SIGTERM + advice(output)
    workshop.train(output, *strategy, processes=processes, resume=True)
    found, expected = (
        json.loads((path / "results.json").read_text())["tasks"] for path in (output, tmp_path / "reference")
    )
    assert found == expected
    weights, reference = ((path / "model.safetensors").read_bytes() for path in (output, tmp_path / "reference"))
    assert weights == reference


def test_sigterm_saves_a_checkpoint_of_a_run_that_saves_none(workshop, output, tmp_path):
    never = (*CASES["the last model"], "training.save_strategy=no")
    workshop.train(tmp_path / "reference", *never)
    started = workshop.start_until(after(4), output, *never)
    started.signal(signal.SIGTERM)
    assert started.end().line(143, BY_SIGTERM) == BY_SIGTERM + advice(output)
    workshop.train(output, *never, resume=True)
    weights, reference = ((path / "model.safetensors").read_bytes() for path in (output, tmp_path / "reference"))
    assert weights == reference


def test_sigterm_states_that_a_run_with_save_only_model_cannot_resume(workshop, output):
    started = workshop.start_until(after(4), output, "training.save_only_model=true")
    started.signal(signal.SIGTERM)
    line = started.end().line(143, BY_SIGTERM)
    assert "Under `save_only_model` no checkpoint was saved, since no run could resume from it." in line
    assert f"There is no complete checkpoint in {output}: checkpoint-3 is incomplete" in line
    assert {path.name for path in output.glob("checkpoint-*")} <= {"checkpoint-3", "checkpoint-6"}


def test_sigterm_to_all_processes_of_a_group_does_not_lose_the_workers(workshop, output):
    case = "a worker"
    started = workshop.start_until(after(2), output, *CASES[case])
    workers = started.workers()
    assert workers
    for process in [*workers, psutil.Process(started.processes[0].pid)]:
        process.terminate()
    assert started.end().line(143, BY_SIGTERM) == BY_SIGTERM + advice(output)
    psutil.wait_procs(workers, timeout=20)
    assert not any(each.is_running() for each in workers)
    workshop.train(output, *CASES[case], resume=True)
    reference = workshop.reference(case)
    assert_same_run(output, reference, *more_steps(output, reference))


@pytest.mark.parametrize("target", ["launcher", "group"])
def test_launcher_passes_sigterm_on(workshop, output, target):
    started = workshop.start_until(after(4), output, processes=2, command=True)
    (launcher,) = started.processes
    for each in [launcher.pid, *([w.pid for w in started.workers()] if target == "group" else [])]:
        os.kill(each, signal.SIGTERM)
    ended = started.end()
    lines = [line for line in ended.stderr.splitlines() if line.startswith("mtl-nlp: ")]
    assert lines == [BY_SIGTERM + advice(output)], ended.stderr[-6000:]
    workshop.train(output, processes=2, resume=True)
    reference = workshop.reference("mixed", 2)
    assert_same_run(output, reference, *more_steps(output, reference))


# Ctrl-C


def handles(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> number - 1 & 1)


def is_in_main(started: Started) -> bool:
    """Whether all processes have started the command."""
    return all(handles(process.pid, signal.SIGTERM) for process in started.processes)


@pytest.mark.parametrize(
    ("moment", "processes"),
    [
        # While processes look for each other, torch handles no signal: only their launcher can end them.
        ("loading data", 1),
        *((moment, n) for moment in ("before the first checkpoint", "training", "scoring") for n in (1, 2)),
        *(("writing a checkpoint", n) for n in (1, 2)),
    ],
)
def test_ctrl_c_ends_a_training_in_one_line(workshop, output, moment, processes):
    moments = {
        "loading data": is_in_main,
        "before the first checkpoint": after(1),
        "training": after(5),
        "writing a checkpoint": while_writing(output, "optimizer.pt"),
        "scoring": lambda started: (output / "model.safetensors").exists(),
    }
    started = workshop.start_until(moments[moment], output, processes=processes)
    started.thaw()
    started.signal(signal.SIGINT)
    line = started.end().line(130, "mtl-nlp: ")
    if moment == "before the first checkpoint":
        assert line == f"{BY_CTRL_C}There is no complete checkpoint in {output}. Start the run again."
    elif moment in {"loading data", "writing a checkpoint"}:
        assert line.startswith(BY_CTRL_C.rstrip())
    else:
        assert line == BY_CTRL_C + advice(output)


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_weights(workshop, output):
    case = "a worker"
    for step in (2, 7):
        started = workshop.start_until(after(step), output, *CASES[case], resume=has_complete(output))
        workers = started.workers()
        for process in [*workers, psutil.Process(started.processes[0].pid)]:  # as a terminal does
            process.send_signal(signal.SIGINT)
        started.end().line(130, BY_CTRL_C)
        psutil.wait_procs(workers, timeout=20)
        assert not any(each.is_running() for each in workers)
    workshop.train(output, *CASES[case], resume=True)
    assert_same_run(output, workshop.reference(case))


@pytest.mark.parametrize("command", [False, True])
def test_repeated_ctrl_c_leaves_no_traceback(workshop, output, command):
    started = workshop.start_until(after(4), output, command=command)
    deadline = time.monotonic() + 60
    while started.is_running and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            started.signal(signal.SIGINT)
        time.sleep(0.02)
    started.end().line(130, BY_CTRL_C)


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 3.0])
def test_signal_during_the_imports_of_a_command_leaves_one_line(workshop, tmp_path, number, code, name, seconds):
    texts = tmp_path / "texts.txt"
    texts.write_text("Ada lives in Paris .\n" * 20_000, encoding="utf-8")
    model = str(workshop.reference("mixed"))
    process = subprocess.Popen(
        [sys.executable, "-m", "mtl_nlp", "predict", model, str(texts), "--output", str(tmp_path / "answers.jsonl")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not handles(process.pid, signal.SIGTERM):
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, ""), stderr
    assert stderr.splitlines()[-1] == f"mtl-nlp: ended by {name}."
    assert "Traceback" not in stderr


def test_sigterm_outside_of_the_training_ends_the_run_at_once(workshop, output):
    started = workshop.start_until(is_in_main, output)
    started.signal(signal.SIGTERM)
    assert started.end().line(143, "mtl-nlp: ").startswith(BY_SIGTERM.rstrip())
    assert not list(output.glob("checkpoint-*"))
    started = workshop.start_until(lambda started: (output / "model.safetensors").exists(), output)
    started.signal(signal.SIGTERM)
    assert started.end().line(143, "mtl-nlp: ") == BY_SIGTERM + advice(output)
    assert not (output / "results.json").exists()


# A killed worker of the data loader


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_worker_is_named_and_the_run_resumes(workshop, output, processes):
    case = "a worker"
    started = workshop.start_until(after(5), output, *CASES[case], processes=processes)
    for worker in started.workers():
        worker.kill()
    ended = started.end()
    assert set(ended.codes) == {1}, ended.stderr[-6000:]
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if "mtl-nlp: " in line]
    assert "A worker of the data loader was killed, in most cases because the memory was full (" in line
    assert "Lower `dataloader_num_workers` or `dataloader_prefetch_factor`. " in line
    assert line.endswith(advice(output))
    workshop.train(output, *CASES[case], processes=processes, resume=True)
    assert_same_run(output, workshop.reference(case, processes))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_worker_killed_during_a_checkpoint_does_not_delete_the_checkpoint(workshop, output, file):
    case = "a worker"
    started = workshop.start_until(while_writing(output, file), output, *CASES[case])
    for worker in started.workers():
        worker.kill()
    started.thaw()
    line = started.end().line(1, "mtl-nlp: error: ")
    assert (output / "checkpoint-4").exists()
    assert "orker of the data loader was killed" in line
    assert "disk" not in line
    workshop.train(output, *CASES[case], resume=has_complete(output))
    assert_same_run(output, workshop.reference(case))
