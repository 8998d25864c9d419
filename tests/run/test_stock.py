"""The stock class with the weights of a multitask model."""

from __future__ import annotations

import pytest
import torch
from families import build_family_config
from toys import build_model

from mtl_nlp import MultitaskConfig, MultitaskModel, TextClassification, TokenClassification
from mtl_nlp.run.stock import as_stock_class, check_same_logits

POS = TokenClassification(name="pos", labels=["a", "b", "c"])
TOPIC = TextClassification(name="topic", labels=["a", "b"], pooling="cls")
MEAN = TextClassification(name="mean", labels=["a", "b"], pooling="mean")


@pytest.mark.parametrize("shares_weights", [False, True])
def test_the_stock_class_has_the_weights_and_computes_the_logits(shares_weights):
    model = build_model([POS, TOPIC])
    inputs = {"input_ids": torch.tensor([[1, 7, 8, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    for task, name in ((POS, "BertForTokenClassification"), (TOPIC, "BertForSequenceClassification")):
        stock = as_stock_class(model, task.name, shares_weights=shares_weights)
        assert type(stock).__name__ == name and not stock.training
        assert torch.equal(stock(**inputs).logits, model(**inputs).logits[task.name])
        word = stock.get_input_embeddings().weight, model.encoder.get_input_embeddings().weight
        assert (word[0].data_ptr() == word[1].data_ptr()) == shares_weights


def test_a_class_with_a_different_encoder_is_refused_in_one_line():
    model = build_model([TOPIC])
    model.encoder.more = torch.nn.Linear(2, 2)
    message = r"^the encoder of BertForSequenceClassification is not that of BertModel$"
    with pytest.raises(ValueError, match=message):
        as_stock_class(model, "topic")


def test_a_head_without_a_stock_class_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^no bert class of transformers supports mean pooling"):
        as_stock_class(build_model([MEAN]), "mean")


def test_a_class_with_other_logits_is_refused_in_one_line():
    config = MultitaskConfig(text_config=build_family_config("canine"), tasks=[POS, TOPIC])
    torch.manual_seed(0)
    model = MultitaskModel(config).train()
    check_same_logits(model, as_stock_class(model, "pos"), "pos")
    with pytest.raises(ValueError, match=r"^CanineForSequenceClassification computes other logits than the model$"):
        check_same_logits(model, as_stock_class(model, "topic"), "topic")
    assert model.training
