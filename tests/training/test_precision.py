"""The number format that `precision` chooses."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.errors import CheckpointError
from mtl_nlp.training.precision import reason_for_bf16, uses_bf16
from mtl_nlp.training.progress import PROGRESS_NAME, number_format_of


def arguments(folder, **values) -> MultitaskTrainingArguments:
    return MultitaskTrainingArguments(str(folder), use_cpu=True, **values)


def test_precision_sets_the_format_and_no_precision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    fast = reason_for_bf16(use_cpu=True) is not None
    expected = {None: "fp32", "fp32": "fp32", "bf16": "bf16", "auto": "bf16" if fast else "fp32"}
    for precision, number_format in expected.items():
        given = arguments(tmp_path, precision=precision)
        copied = dataclasses.replace(given)
        assert given.number_format == copied.number_format == number_format
        assert given.bf16 == copied.bf16 == (number_format == "bf16")
    assert arguments(tmp_path, bf16=True).number_format == "bf16"


def test_a_format_of_the_launcher_takes_precedence_over_auto_only(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert not uses_bf16("auto", use_cpu=True)
    assert arguments(tmp_path, precision="auto").number_format == "bf16"
    assert arguments(tmp_path, precision="fp32").number_format == "fp32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert not uses_bf16("auto", use_cpu=True)


def test_bf16_trains_in_mixed_precision_and_answers_in_float32(trainer_of, disjoint):
    trainer = trainer_of(disjoint, disjoint, precision="bf16", max_steps=2, eval_strategy="steps", eval_steps=1)
    seen: list[tuple[bool, torch.dtype]] = []
    layer = trainer.model.heads[0].get_submodule("stock.classifier")
    layer.register_forward_hook(lambda module, inputs, output: seen.append((trainer.is_in_train, output.dtype)))
    trainer.train()
    trainer.evaluate()
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert trainer.model.dtype == torch.float32
    trainer.train()
    assert seen[-1] == (True, torch.bfloat16)


def test_auto_does_not_change_the_format_of_a_checkpoint(trainer_of, disjoint, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1, "output_dir": str(tmp_path / "run")}
    trainer_of(disjoint, precision="fp32", max_steps=1, **saved).train()
    checkpoint = tmp_path / "run" / "checkpoint-1"
    assert number_format_of(checkpoint) == "fp32"
    record = json.loads((checkpoint / PROGRESS_NAME).read_text())
    other = trainer_of(disjoint, precision="auto", max_steps=2, **saved)
    there = {"fp32": "bf16", "bf16": "fp32"}[other.args.number_format]
    (checkpoint / PROGRESS_NAME).write_text(json.dumps({**record, "number_format": there}))
    with pytest.raises(
        CheckpointError, match=rf"was trained in {there}, and `precision: auto` is .* `precision` {there}"
    ):
        other.train(resume_from_checkpoint=str(checkpoint))
    assert other.args.continue_with(there)
    assert (other.args.number_format, other.args.precision, other.args.bf16) == (there, there, there == "bf16")
    assert not other.args.continue_with("fp32")
    del record["number_format"]
    (checkpoint / PROGRESS_NAME).write_text(json.dumps(record))
    assert number_format_of(checkpoint) is None
    assert number_format_of(tmp_path) is None
