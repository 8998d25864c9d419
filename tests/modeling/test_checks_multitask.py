"""Checks of the values of a configuration, and of a tokenizer against an encoder."""

from __future__ import annotations

import json
import time

import pytest
from tokenizers import processors
from toys import FAMILIES, build_config, build_tokenizer

from mtl_nlp import MultitaskConfig, TextClassification
from mtl_nlp.modeling.checks_multitask import check_tokenizer, check_values, check_window

CONFIG = MultitaskConfig(
    text_config=build_config("bert"), tasks=[TextClassification(name="topic", labels=["a", "b"])]
).to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 10**12}, r"^config\.json: vocab_size should be at most 1,000,000,000\. Found 1e\+12\."),
        ({"text_config": {"num_hidden_layers": 10**9}}, r"text_config: num_hidden_layers should be at most 1,000\."),
        ({"n_layers": -(10**9)}, "n_layers should be at most 1,000"),
        ({"num_labels": 10**9}, "num_labels should be at most 1,000,000"),
        ({"a": [{"b": float("nan")}]}, "a: b should be finite. Found nan"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps should be finite. Found inf"),
        ({"dtype": "nn"}, r"dtype should be one of float16, bfloat16, float32, float64\. Found 'nn'"),
        ({"torch_dtype": ["float32"]}, "torch_dtype should be one of"),
        ({"dtype": 16}, "dtype should be one of"),
    ],
)
def test_implausible_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_values(values)


def test_deep_nesting_is_refused_without_recursion():
    values: list = []
    for _ in range(100_000):
        values = [values]
    with pytest.raises(ValueError, match="nested at most 20 levels deep"):
        check_values(values)


@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_of_all_families_are_accepted(family):
    check_values(json.loads(json.dumps(build_config(family).to_dict())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 5}, r"`tasks` should be a list\. Found 5"),
        ({"tasks": {"name": "pos"}}, "`tasks` should be a list"),
        ({"tasks": ["pos"]}, "A task should be an object with a `name`, a `type` and its `labels`"),
        ({"tasks": [{"type": "regression"}]}, "A task should be an object with a `name`"),
        ({"tasks": [{"name": 3, "type": "regression"}]}, "Task 3: the name of a task should be a text of one line"),
        ({"tasks": [{"name": "pos", "type": ["x"]}]}, r"`type` should be one of .* Found \['x'\]"),
        ({"tasks": [{"name": "a", "type": "text-classification", "labels": 3}]}, "`labels` should be a list of str"),
        ({"tasks": [{"name": "a", "type": "text-classification", "labels": "ab"}]}, "`labels` should be a list of s"),
        ({"tasks": [{"name": "a", "type": "text-classification", "labels": None}]}, "`labels` should be a list of s"),
        ({"tasks": [{"name": "a", "type": "text-classification", "labels": [{}]}]}, "`labels` should be a list of s"),
        ({"tasks": [{"name": "a", "type": "token-classification", "scheme": ["x"]}]}, "`scheme` should be one of"),
        ({"adapters": 5}, "`adapters` should be a list"),
        ({"adapters": [5]}, "An adapter should have"),
        ({"max_length": 0}, "`max_length` should be an integer of at least 1"),
        ({"max_length": "48"}, "`max_length` should be an integer of at least 1"),
        ({"stride": True}, "`stride` should be an integer of at least 0"),
        ({"splits_words": "yes"}, "`splits_words` should be true or false"),
        ({"text_config": 5}, "`text_config` should be an object"),
        ({"text_config": {"hidden_size": 8}}, "`text_config` should have a `model_type`. Found None"),
        ({"text_config": {"model_type": ["bert"]}}, "`text_config` should have a `model_type`"),
        ({"text_config": {"model_type": "bort-9000"}}, "bort-9000"),
        ({"text_config": {"model_type": "bert", "chunk_size_feed_forward": 7}}, "should be 0 or 1"),
    ],
)
def test_fields_of_a_wrong_type_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MultitaskConfig.from_dict({**CONFIG, **changes})


def test_huge_numbers_are_refused_before_lists_of_this_length_are_built():
    start = time.monotonic()
    for changes in ({"num_labels": 10**9}, {"num_hidden_layers": 10**9}):
        with pytest.raises(ValueError, match="should be at most"):
            MultitaskConfig.from_dict({**CONFIG, "text_config": {"model_type": "modernbert", **changes}})
    assert time.monotonic() - start < 1.0


def test_encoders_always_return_their_output_by_name():
    encoder = {**CONFIG["text_config"], "return_dict": False}
    assert MultitaskConfig.from_dict({**CONFIG, "text_config": encoder}).text_config.return_dict is True


# Tokenizers


@pytest.mark.parametrize("rows", [300, 320, 600])
@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_vocabulary_may_have_half_of_the_rows_of_the_embedding(kind, rows):
    check_tokenizer(build_tokenizer(kind), build_config("bert", vocab_size=rows))


@pytest.mark.parametrize("rows", [299, 601, 30_522])
def test_vocabulary_of_a_different_size_is_refused(rows):
    with pytest.raises(
        ValueError, match=rf"the tokenizer has 300 entries, and the embedding of the encoder has {rows} "
    ):
        check_tokenizer(build_tokenizer("wordpiece"), build_config("bert", vocab_size=rows))


def test_added_tokens_belong_to_the_vocabulary():
    tokenizer = build_tokenizer("wordpiece")
    tokenizer.add_tokens([f"new{number}" for number in range(20)])
    check_tokenizer(tokenizer, build_config("bert", vocab_size=320))
    with pytest.raises(ValueError, match="has 320 entries"):
        check_tokenizer(tokenizer, build_config("bert", vocab_size=319))


def test_encoder_without_a_vocabulary_size_is_accepted():
    check_tokenizer(build_tokenizer("wordpiece"), build_config("canine"))


def test_tokenizer_without_padding_is_refused():
    tokenizer = build_tokenizer("wordpiece")
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="should have a `pad_token`"):
        check_tokenizer(tokenizer, build_config("bert"))


def test_tokenizer_with_a_different_first_input_is_refused():
    tokenizer = build_tokenizer("wordpiece")
    tokenizer.model_input_names = ["inout_ids", "attention_mask"]
    with pytest.raises(ValueError, match="the first input of the tokenizer should be `input_ids`"):
        check_tokenizer(tokenizer, build_config("bert"))


@pytest.mark.parametrize(
    ("pair", "special", "message"),
    [
        ("[CLS]:0 $A:0 $B:7", ("[CLS]", 1), r"returns 7 in `token_type_ids`\. The encoder reads numbers below 2\."),
        ("[CLS]:0 $A:0 $B:1", ("[CLS]", 700), r"returns 700 in `input_ids`\. The encoder reads numbers below 500\."),
    ],
)
def test_template_with_numbers_that_the_encoder_cannot_read_is_refused(pair, special, message):
    tokenizer = build_tokenizer("wordpiece")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0", pair=pair, special_tokens=[special]
    )
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer, build_config("bert"))


@pytest.mark.parametrize(
    ("max_length", "stride", "message"),
    [
        (2, None, "max_length: should be at least 3, .* Found 2"),
        (10, 8, "stride: should be below 8, .* Found 8"),
    ],
)
def test_window_needs_space_for_a_sub_word_and_the_stride(max_length, stride, message):
    tokenizer = build_tokenizer("wordpiece")
    check_window(tokenizer, max_length + 1, stride)
    check_window(tokenizer, None, stride)
    with pytest.raises(ValueError, match=message):
        check_window(tokenizer, max_length, stride)
