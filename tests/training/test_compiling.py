"""The compiled encoder trains like the encoder itself, and is compiled few times."""

from __future__ import annotations

import shutil

import pytest
from toy_splits import build_split
from trainers import adapted_model

from mtl_nlp.training.schedule import bucket_limit


@pytest.fixture
def compiler(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # restored after the test: `torch_compile` sets the variable


def test_adapters_are_refused(compiler, trainer_of, disjoint):
    with pytest.raises(ValueError, match="`torch_compile` does not support adapters"):
        trainer_of(disjoint, model=adapted_model(), torch_compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch's own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_encoder_trains_like_the_encoder_with_few_compilations(compiler, trainer_of, tokenizer):
    lengths = [2 + number % 30 for number in range(96)]
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13, "score": lambda n: n % 2 == 0}
    split = build_split(tokenizer, 1, lengths, has)
    settings = {"per_device_train_batch_size": 8, "max_steps": 12, "logging_steps": 1, "learning_rate": 1e-3}
    plain = trainer_of({"d": split}, **settings)
    plain.train()
    compiled = trainer_of({"d": split}, torch_compile=True, **settings)
    compiled.train()
    losses = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    limit = bucket_limit(compiled.train_dataset, compiled.args)
    seen = {batch["input_ids"].shape[1] for batch in compiled.get_train_dataloader()}
    assert compiled.data_collator.bucket_limit == limit
    assert len(seen) > 4
    counts = [entry["compilations"] for entry in compiled.state.log_history if "compilations" in entry]
    assert 0 < counts[-1] <= 4
    assert counts[-1] == counts[5]
