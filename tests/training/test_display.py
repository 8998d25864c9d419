from __future__ import annotations

import logging
import os
import re
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from toy_splits import TASKS
from toy_weightings import Uncertainty
from trainers import build_model
from transformers import PrinterCallback, training_args

import mtl_nlp.training.display as display
from mtl_nlp.training.display import shows_bars

ARGUMENTS = {"per_device_train_batch_size": 8, "eval_strategy": "epoch", "num_train_epochs": 2, "logging_steps": 2}


@contextmanager
def terminal(monkeypatch) -> Iterator[list[str]]:
    """Let stdout and stderr be a terminal of 200 columns; its output is appended to the list at the end."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    found: list[str] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(training_args.logger, "getEffectiveLevel", lambda: logging.WARNING)  # commands change it
    monkeypatch.setenv("TERM", "xterm")
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        patched.setattr(sys, "stderr", stream)
        yield found
        stream.flush()
        found.append(_read(ours))
    os.close(ours)


def _read(descriptor: int) -> str:
    parts = []
    with pytest.raises(BlockingIOError):
        while True:
            parts.append(os.read(descriptor, 65536))
    return b"".join(parts).decode()


def test_a_pipe_gets_a_line_per_log_and_evaluation(trainer_of, disjoint, capsys):
    trainer = trainer_of(disjoint, disjoint, disable_tqdm=None, **ARGUMENTS)
    assert trainer.args.disable_tqdm
    capsys.readouterr()  # the warning that the regression of the toy model has no scale
    trainer.train()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\r" not in printed.out
    first, *lines, last = printed.out.splitlines()
    assert first == "training: 10 steps"
    assert re.fullmatch(r"trained 10 steps in \d\d:\d\d, [\d,]+ tokens/s", last)
    logs = [line for line in lines if line.startswith("step ")]
    assert len(logs) == 5
    number = r"\d+\.\d{4}"
    assert re.fullmatch(
        rf"step 2/10, epoch 0\.4  loss {number}(, \w+ {number})+  lr \d\.\d\de-05  [\d.e+]+ rows/s  ETA \d\d:\d\d",
        logs[0],
    )
    assert all(f"{task} " in "".join(logs) for task in trainer.tasks)
    evaluations = [line for line in lines if line.startswith("evaluation at step ")]
    assert len(evaluations) == 2
    assert re.match(
        rf"evaluation at step 5/10, epoch 1: pos accuracy {number}\* loss {number}, ner f1 ", evaluations[0]
    )
    assert re.search(rf"all mtl_score {number}\* loss {number} \(\* best so far\)$", evaluations[0])
    assert lines == [line for line in lines if line in logs or line in evaluations]


def test_a_terminal_gets_a_bar_and_a_table_per_evaluation(trainer_of, disjoint, monkeypatch):
    with terminal(monkeypatch) as found:
        assert shows_bars()
        trainer = trainer_of(disjoint, disjoint, disable_tqdm=None, **ARGUMENTS)
        assert not trainer.args.disable_tqdm
        trainer.train()
        trainer.answer(disjoint)
    (printed,) = found
    assert re.search(r"loss \d\.\d{4}, pos \d\.\d{4}, [^\r]*, lr \d\.\d\de-05", printed)
    assert re.search(r"training: +100%\|█+\| 10/10 \[00:\d\d<00:00, .* loss \d\.\d{4}, pos \d\.\d{4}, ", printed)
    assert "'loss'" not in printed
    assert printed.count("evaluation at step") == 2
    assert re.search(r"task +metric +score +loss\r\n-+ +-+ +-+ +-+\r\npos +accuracy +\d\.\d{4}\* +\d\.\d{4}", printed)
    # Each of the two datasets has a bar of its own, which ends at its end and leaves no line.
    bars = re.findall(r"evaluating: +\d+%\|[^|]*\| (\d+)/(\d+)", printed)
    assert bars
    assert all(int(done) <= int(total) for done, total in bars)
    assert trainer.display._evaluation is None
    assert printed.endswith(" \r")


def test_skips_and_changing_weights_are_shown_beside_a_bar(trainer_of, with_bad_row, monkeypatch):
    with terminal(monkeypatch) as found:
        trainer_of(
            with_bad_row,
            model=build_model(),
            loss_weighting=Uncertainty(TASKS),
            disable_tqdm=None,
            on_nonfinite="skip",
            per_device_train_batch_size=2,
            logging_steps=3,
            max_steps=6,
        ).train()
    (printed,) = found
    assert re.search(r"step \d/6, epoch [\d.]+  skipped_score 1\r?\n", printed)
    assert "weight_score " in printed


def test_own_metrics_and_other_prefixes_are_shown(trainer_of, disjoint, capsys):
    trainer = trainer_of(
        disjoint,
        disjoint,
        given={"compute_metrics": lambda given: {"own": 0.25}},
        metric_for_best_model="topic_macro_f1",
        max_steps=1,
    )
    trainer.evaluate(metric_key_prefix="test")
    trainer.evaluate()
    trainer.train()
    trainer.evaluate(metric_key_prefix="test")
    test, start, *_, after = [line for line in capsys.readouterr().out.splitlines() if "evaluation" in line]
    assert test.startswith("evaluation (test): pos accuracy 0.") and "*" not in test
    assert start.startswith("evaluation: pos accuracy 0.") and "*" not in start
    assert re.search(r"all mtl_score \d\.\d{4} loss \d\.\d{4}, own 0\.2500, topic_macro_f1 \d\.\d{4}$", start)
    assert re.match(r"evaluation \(test\) at step 1/1, epoch [\d.]+: pos accuracy", after) and "*" not in after


def test_ten_seconds_of_silence_are_broken(trainer_of, disjoint, capsys, monkeypatch):
    monkeypatch.setattr(display, "_LONGEST_SILENCE", 0.0)
    trainer = trainer_of(disjoint, disjoint, max_steps=3, per_device_train_batch_size=8, logging_steps=100)
    trainer.train()
    trainer.score(disjoint)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"step 1/3, epoch 0\.2  \w+ \d+\.\d{4}.*  [\d.e+]+ rows/s  ETA \d\d:\d\d$", lines[1])
    assert re.fullmatch(r"evaluating: batch 1 of \d", lines[5])


def test_a_display_is_removed_as_that_of_trainer(trainer_of, disjoint, capsys):
    trainer = trainer_of(disjoint, max_steps=1)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert capsys.readouterr().out == ""
    trainer = trainer_of(disjoint, max_steps=1)
    assert trainer.pop_callback(PrinterCallback) is trainer.display
    assert trainer.pop_callback(PrinterCallback) is None
    given = PrinterCallback()  # a display that the user adds is that of the user
    trainer.add_callback(given)
    assert trainer.pop_callback(PrinterCallback) is given


@pytest.mark.parametrize(
    ("before", "last", "text"),
    [(0, 51, "51 steps"), (0, 1, "1 step"), (25, 51, "steps 26 to 51 (26 steps)"), (50, 51, "steps 51 to 51 (1 step)")],
)
def test_steps_of_a_resumed_training_are_those_after_its_checkpoint(before, last, text):
    assert display._steps_text(before, last) == text
    assert display._steps_text(last, last) == f"no step after step {last}"


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
def test_the_log_of_a_job_gets_no_bar(monkeypatch, name, value):
    with terminal(monkeypatch):
        monkeypatch.setenv(name, value)
        assert not shows_bars()
