from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import build_model, build_tokenizer

from mtl_nlp import MultitaskTrainer, MultitaskTrainingArguments, TextClassification
from mtl_nlp.cli import main as entry
from mtl_nlp.cli.signals import EndingSignals, Interrupted, advice_to_resume, sigterm_stops
from mtl_nlp.errors import RunError

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    """Restore the handlers, which stay in place after a signal until the process ends."""
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    EndingSignals._current = None
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_signal_raises_in_the_main_thread_and_is_reported_in_one_line(capsys, number):
    signals = EndingSignals()
    with pytest.raises(Interrupted) as raised, signals.handled():
        os.kill(os.getpid(), number)
    raised.value.advice = "Advice."
    assert signals.report(raised.value) == signals.exit_code == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert capsys.readouterr().err == f"mtl-nlp: ended by {name}. Advice.\n"
    os.kill(os.getpid(), number)  # a launcher repeats the signal


def test_only_the_first_process_prints(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert EndingSignals().report(Interrupted(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == ""


def build_trainer(folder: Path) -> MultitaskTrainer:
    tokenizer = build_tokenizer("wordpiece")
    model = build_model([TextClassification(name="topic", labels=("news", "sport"))], vocab_size=len(tokenizer))
    arguments = MultitaskTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    return MultitaskTrainer(model=model, args=arguments, processing_class=tokenizer)


def test_sigterm_after_ctrl_c_in_training_does_not_interrupt_again(tmp_path):
    trainer = build_trainer(tmp_path)
    with pytest.raises(Interrupted), EndingSignals().handled(), sigterm_stops(trainer):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # a launcher ends the process that Ctrl-C did not end yet


def test_a_trained_model_is_saved_despite_a_late_sigterm(tmp_path):
    trainer, signals = build_trainer(tmp_path), EndingSignals()
    with signals.handled(), sigterm_stops(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
    assert trainer.stop.is_requested
    assert signals.exit_code == 0


def test_handlers_are_restored_without_a_signal():
    before = [signal.getsignal(number) for number in NUMBERS]
    signals = EndingSignals()
    with signals.handled():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
    assert signals.exit_code == 0


def test_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with EndingSignals().handled():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)


def test_commands_run_in_a_thread_without_handlers():
    found = []

    def run() -> None:
        with EndingSignals().handled():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_forked_processes_die_of_sigterm_and_ignore_ctrl_c():
    with EndingSignals().handled():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize(
    "message", ["DataLoader worker (pid 7) is killed by signal: Killed. ", "Connection closed by peer"]
)
def test_lost_process_is_reported_with_the_checkpoint_to_resume_from(tmp_path, message):
    with pytest.raises(RunError, match=f"There is no complete checkpoint in {tmp_path}."), advice_to_resume(tmp_path):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="size mismatch"), advice_to_resume(tmp_path):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "No space left on device"), 1), (RunError("lost."), 1)])
def test_failures_of_a_run_have_exit_code_1_and_one_line(monkeypatch, capsys, error, code):
    def plan(options: object) -> None:
        raise error

    monkeypatch.setattr(entry.training, "plan", plan)
    assert entry.main(["plan", "recipe.yaml"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtl-nlp: error: ")


def test_debug_shows_the_place_of_a_signal(monkeypatch, capsys):
    def plan(options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(entry.training, "plan", plan)
    assert entry.main(["plan", "recipe.yaml", "--debug"]) == 143
    assert "in plan" in capsys.readouterr().err
