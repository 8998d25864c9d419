from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from toy_splits import TASKS, build_split
from trainers import adapted_model, build_model

from mtl_nlp import EncodedDataset
from mtl_nlp.evaluation.evaluator import Answer
from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.training.evaluation import EvaluatedRows


@pytest.fixture(scope="module")
def long_texts(tokenizer) -> EncodedDataset:
    """Texts of up to 150 words, many with several windows."""
    has = {"pos": lambda n: True, "ner": lambda n: n != 9, "topic": lambda n: n != 150, "score": lambda n: n > 1}
    return build_split(tokenizer, 4, [9, 150, 1, 60, 30, 2, 70], has)


def test_rows_of_two_processes_are_joined():
    one = EvaluatedRows(
        {"pos": {0: Answer(["A"]), 2: Answer(["B"])}}, [{"pos": 1.5}], StepCounts(2, {"pos": 2}, {"pos": 2})
    )
    other = EvaluatedRows({"pos": {1: Answer(["C"])}}, [{"pos": 0.25}], StepCounts(3, {"pos": 1}, {"pos": 1}))
    both = one + other
    assert both.answers == {"pos": {0: Answer(["A"]), 1: Answer(["C"]), 2: Answer(["B"])}}
    assert both.loss_sums == [{"pos": 1.5}, {"pos": 0.25}]
    assert both.counts == StepCounts(5, {"pos": 3}, {"pos": 3})


@pytest.mark.parametrize(("setting", "dtype"), [("bf16_full_eval", torch.bfloat16), ("fp16_full_eval", torch.float16)])
def test_evaluation_in_half_precision_is_close_to_full_precision(trainer_of, long_texts, setting, dtype):
    model = build_model()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    half = trainer_of(model=copy.deepcopy(model), validation={"d": long_texts}, **{setting: True})
    full = trainer_of(model=model, validation={"d": long_texts})
    low, high = half.evaluate(), full.evaluate()
    assert {parameter.dtype for parameter in half.model.parameters()} == {dtype}
    assert {parameter.dtype for parameter in full.model.parameters()} == {torch.float32}
    losses = [key for key in high if key.endswith("loss")]
    assert len(losses) == len(TASKS) + 1
    assert [low[key] for key in losses] == pytest.approx([high[key] for key in losses], rel=0.05)
    assert [low[key] for key in losses] != [high[key] for key in losses]
    predictions, others = (each.predict_rows(long_texts)["pos"] for each in (half, full))
    same = [a == b for row, other in zip(predictions, others, strict=True) for a, b in zip(row, other, strict=True)]
    assert np.mean(same) > 0.9


def test_half_precision_evaluation_is_off_during_training(trainer_of, disjoint):
    settings = {"bf16_full_eval": True, "eval_strategy": "steps", "eval_steps": 1}
    trainer = trainer_of(disjoint, disjoint, model=adapted_model(), max_steps=2, **settings)
    trainer.train()
    assert sum("eval_loss" in entry for entry in trainer.state.log_history) == 2
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
