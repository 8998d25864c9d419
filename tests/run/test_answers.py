"""The answers of a model for a padded text, the same text alone, and the stock classes."""

from __future__ import annotations

import pytest
import torch
from families import build_family_config
from toys import lively_model

from mtl_nlp import MultitaskConfig, MultitaskModel, Regression, TextClassification, TokenClassification
from mtl_nlp.modeling.heads_multitask import TaskHead
from mtl_nlp.run.answers import answers_of, stock_problem

POS = TokenClassification(name="pos", labels=["a", "b", "c"])
TOPIC = TextClassification(name="topic", labels=["a", "b"], pooling="cls")
MEAN = TextClassification(name="mean", labels=["a", "b"], pooling="mean")
ROWS = [[1, 7, 8, 9, 10, 2], [1, 7, 8, 2, 0, 0], [1, 7, 11, 12, 13, 2]]
INPUTS = {"input_ids": torch.tensor(ROWS), "attention_mask": (torch.tensor(ROWS) != 0).long()}


def answers(model: MultitaskModel):
    return answers_of(model, INPUTS, 4)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_padding_does_not_change_the_answers_and_heads_are_those_of_stock_classes(family):
    model = lively_model([POS, TOPIC, MEAN], family)
    for name, found in answers(model).items():
        assert found.are_clear and found.effect > 100 * found.rounding and not found.ignore_text, name
        assert found.effect_of_padding < 1e-4 and not found.head_reads_padding, name
        assert stock_problem(model, name, INPUTS, found) is None
        assert not found.logits.requires_grad
    assert not any(head._forward_pre_hooks for head in model.heads)


def test_an_encoder_that_reads_padding_is_told_from_a_head_that_does(monkeypatch):
    torch.manual_seed(0)
    model = MultitaskModel(MultitaskConfig(text_config=build_family_config("fnet"), tasks=[POS, MEAN])).eval()
    for found in answers(model).values():
        assert found.effect_of_padding > 0.1 and not found.head_reads_padding
    forward = TaskHead.forward
    monkeypatch.setattr(TaskHead, "forward", lambda self, hidden, mask: forward(self, hidden, torch.ones_like(mask)))
    found = answers(lively_model([POS, MEAN]))
    assert found["mean"].head_reads_padding and found["mean"].effect_of_padding > 0.01
    assert not found["pos"].head_reads_padding


def test_a_head_that_does_not_see_the_words_is_found(monkeypatch):
    forward = TaskHead.forward
    monkeypatch.setattr(TaskHead, "forward", lambda self, hidden, mask: forward(self, torch.ones_like(hidden), mask))
    assert answers(lively_model([TOPIC]))["topic"].ignore_text


def test_the_scale_of_a_number_does_not_hide_differences():
    plain, scaled = Regression(name="score"), Regression(name="score", mean=1000.0, sd=50.0)
    by_task = [answers(lively_model([task]))["score"] for task in (plain, scaled)]
    torch.testing.assert_close(by_task[0].logits, by_task[1].logits, rtol=0, atol=1e-3)
    assert all(found.are_clear and not found.ignore_text for found in by_task)


def test_a_stock_class_with_other_logits_is_named():
    model = lively_model([TOPIC, MEAN])
    found = answers(model)
    assert stock_problem(model, "mean", INPUTS, found["mean"]) is None  # does not claim to be a stock class
    model.heads[0].stock.classifier.bias.data += 1.0
    problem = stock_problem(model, "topic", INPUTS, found["topic"])
    assert problem == "BertForSequenceClassification computes other logits than the model"
