"""Encoders of encoder-decoders, decoders, and encoders with global attention or unread layers, by behaviour."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families import TEXTS, WORDS, a_family_batch, build_family, build_family_config, measure
from peft import LoraConfig
from toys import liven_adapters
from transformers import AutoModel, BertGenerationConfig, Gemma3TextConfig, GPTNeoXConfig
from transformers.pytorch_utils import Conv1D

from mtl_nlp import MultitaskConfig, MultitaskModel, TextClassification
from mtl_nlp.modeling.adapters_multitask import routed_layers
from mtl_nlp.modeling.encoders_multitask import build_encoder, default_pooling, reads_left_context, stock_pooling
from mtl_nlp.modeling.heads_multitask import fit_to_encoder, pool, stock_class_problem


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "qwen3", "longformer", "xlnet", "big_bird"])
def test_each_kind_of_encoder_does_as_its_configuration_says(family):
    measure(family)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_encoder_of_an_encoder_decoder_is_used_alone(family, tmp_path):
    config = build_family_config(family)
    whole = AutoModel.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    model = MultitaskModel.from_encoder(str(tmp_path), [WORDS, TEXTS]).eval()
    assert not any("decoder" in name or "lm_head" in name for name in model.state_dict())
    batch = a_family_batch()
    expected = whole.get_encoder()(**batch).last_hidden_state
    assert torch.equal(model.encoder(**batch).last_hidden_state, expected)


@pytest.mark.parametrize("family", ["squeezebert", "big_bird", "layoutlm"])
def test_layers_that_no_head_reads_are_saved_and_not_trained(family, tmp_path):
    model = build_family(family)
    sum(logits.sum() for logits in model(**a_family_batch()).logits.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    unread = {name for name in model.state_dict() if "pooler" in name} - {name for name, _ in model.named_parameters()}
    assert unread
    model.save_pretrained(tmp_path)
    loaded = MultitaskModel.from_pretrained(tmp_path)
    assert unread.isdisjoint(name for name, _ in loaded.named_parameters())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_adapters_of_transposed_layers_can_be_merged():
    model, batch = build_family("gpt2"), a_family_batch()
    model.add_adapter(LoraConfig(r=2), "texts")
    assert {type(layer.get_base_layer()) for layer in routed_layers(model.encoder).values()} == {Conv1D}
    liven_adapters(model)
    merged = model.merge_and_unload("texts")
    assert not torch.allclose(model(**batch).logits["texts"], build_family("gpt2")(**batch).logits["texts"])
    torch.testing.assert_close(merged(**batch).logits["texts"], model(**batch).logits["texts"], rtol=0, atol=1e-4)


def test_options_decide_whether_a_family_reads_only_the_left():
    assert reads_left_context(GPTNeoXConfig()) and not reads_left_context(BertGenerationConfig())
    assert reads_left_context(Gemma3TextConfig())
    assert not reads_left_context(Gemma3TextConfig(use_bidirectional_attention=True))
    assert reads_left_context(build_family_config("bert", is_decoder=True))
    assert [default_pooling(build_family_config(family)) for family in ("bert", "xlnet", "llama", "mt5")] == [
        *("cls", "last", "last", "mean")
    ]


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text"])
def test_a_decoder_with_bidirectional_attention_reads_the_last_sub_word_like_its_stock_class(family):
    config = build_family_config(family, use_bidirectional_attention=True)
    assert (default_pooling(config), stock_pooling(config)) == ("last", "last")
    first = dataclasses.replace(TEXTS, name="first", pooling="cls")
    torch.manual_seed(0)
    model = MultitaskModel(MultitaskConfig(text_config=config, tasks=[TEXTS, first])).eval()
    batch = a_family_batch()
    hidden, logits = model.encoder(**batch).last_hidden_state, model(**batch).logits
    last = model.heads[0].stock.score(hidden[[0, 1, 2], [8, 5, 2]])
    torch.testing.assert_close(logits["texts"], last)
    torch.testing.assert_close(logits["first"], model.heads[1].stock.score(hidden[:, 0]))
    assert stock_class_problem(TEXTS, config) is None
    assert f"no {family} class of transformers reads this sub-word" in stock_class_problem(first, config)


def test_the_encoder_has_no_pooler_and_keeps_the_configuration():
    config = build_family_config("bert")
    before = config.to_dict()
    assert build_encoder(config).pooler is None
    assert config.to_dict() == before


# The pooling of heads


def test_pooling_ignores_padding_on_either_side():
    hidden, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    assert torch.equal(pool(hidden, mask, "last"), torch.stack([hidden[0, 2], hidden[1, 4]]))
    torch.testing.assert_close(pool(hidden, mask, "mean"), torch.stack([hidden[0, :3].mean(0), hidden[1, 2:].mean(0)]))
    assert pool(hidden[:0], mask[:0], "last").shape == (0, 3)


def test_a_bidirectional_encoder_can_read_its_last_sub_word_without_a_stock_class():
    task = TextClassification(name="texts", labels=["a", "b", "c"], pooling="last")
    model, batch = build_family("bert", [task]), a_family_batch()
    hidden = model.encoder(**batch).last_hidden_state
    expected = model.heads[0].stock(inputs_embeds=hidden[[0, 1, 2], [8, 5, 2]][:, None]).logits
    torch.testing.assert_close(model(**batch).logits["texts"], expected)
    config = build_family_config("bert")
    assert stock_class_problem(task, config) == "no bert class of transformers reads this sub-word (`pooling: last`)"
    assert MultitaskConfig(text_config=config, tasks=[task]).get_tasks() == [task]


def test_the_first_sub_word_of_a_decoder_is_refused():
    task = TextClassification(name="texts", labels=["a", "b"], pooling="cls")
    with pytest.raises(ValueError, match=r"`pooling` should be last or mean for a gpt2 encoder"):
        fit_to_encoder(task, build_family_config("gpt2"))
    assert fit_to_encoder(WORDS, build_family_config("gpt2")) == WORDS


@pytest.mark.parametrize(
    ("family", "task", "problem"),
    [
        ("t5", WORDS, None),
        ("t5", TEXTS, "transformers has no t5 class for text-classification that runs the encoder alone"),
        ("bart", TEXTS, "transformers has no bart class for text-classification that runs the encoder alone"),
        ("gpt2", TEXTS, None),
        ("longformer", TEXTS, None),
        (
            "longformer",
            WORDS,
            "the longformer class of transformers for token-classification has no global attention on the first "
            "sub-word",
        ),
    ],
)
def test_only_equal_stock_classes_are_claimed(family, task, problem):
    assert stock_class_problem(task, build_family_config(family)) == problem
