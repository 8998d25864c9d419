"""The thread that makes batches ahead changes neither their order nor the training."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from trainers import assert_same_weights

from mtl_nlp.training.prefetching import Prefetcher
from mtl_nlp.training.stepping import SteppingTrainer


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("batches")]


def test_batches_come_in_order_and_at_most_some_are_made_ahead():
    made = []

    def batches():
        for number in range(6):
            made.append(number)
            yield number
        raise OSError("the file is gone")

    prefetcher = Prefetcher(batches(), ahead=2)
    found = []
    with pytest.raises(OSError, match="gone"):
        for batch in prefetcher:
            found.append(batch)
            assert len(made) <= len(found) + 2
    assert found == made == [*range(6)]
    prefetcher.close()
    short = Prefetcher(iter("abc"), ahead=4)
    assert [*short] == [*"abc"]
    short.close()
    assert not threads()


def test_a_training_with_prefetched_batches_is_equal_and_resumes_equally(trainer_of, disjoint, tmp_path, monkeypatch):
    settings = {"per_device_train_batch_size": 4, "max_steps": 9, "gradient_accumulation_steps": 2}
    plain = trainer_of(disjoint, **settings)
    plain.train()
    monkeypatch.setattr(SteppingTrainer, "_prefetches", True)
    saved = {"save_strategy": "steps", "save_steps": 3, "output_dir": str(tmp_path / "saved")}
    for resume in (None, str(tmp_path / "saved" / "checkpoint-3")):
        trainer = trainer_of(disjoint, **settings, **saved)
        trainer.train(resume_from_checkpoint=resume)
        assert_same_weights(trainer.model, plain.model)
        assert trainer.progress.drawn == plain.progress.drawn
        assert not threads()


def test_an_interpreter_ends_while_batches_are_waiting():
    code = (
        "import itertools\nfrom mtl_nlp.training.prefetching import Prefetcher\nnext(Prefetcher(itertools.count(), 3))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
