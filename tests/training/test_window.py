from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, IterableDataset
from toys import build_config
from transformers import pipeline

import mtl_nlp
from mtl_nlp import (
    EncodedDataset,
    MultitaskConfig,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    TaskMixture,
    TokenClassification,
)
from mtl_nlp.training.window import agree_on_window

TASK = TokenClassification(name="pos", labels=["A", "B"])
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"] * 5


def encoded(tokenizer: Any, name: str = "d", **window: int) -> EncodedDataset:
    """Return one encoded text of 45 words."""
    rows = Dataset.from_dict({"tokens": [WORDS], "pos": [["A", "B", "A"] * 15]})
    return mtl_nlp.encode(
        rows,
        inputs={"tokens": "tokens"},
        labels={"pos": "pos"},
        tasks=[TASK],
        tokenizer=tokenizer,
        name=name,
        **window,
    )


def config_of(**window: int) -> MultitaskConfig:
    return MultitaskConfig(text_config=build_config("bert"), tasks=[TASK], **window)


def test_encoded_data_knows_its_window(tokenizer):
    assert (encoded(tokenizer, max_length=20, stride=3).max_length, encoded(tokenizer, max_length=20).stride) == (
        20,
        None,
    )
    assert encoded(tokenizer).max_length == tokenizer.model_max_length
    rows = {"tokens": [WORDS], "pos": [["A", "B", "A"] * 15]}
    stream = mtl_nlp.encode(
        IterableDataset.from_generator(
            lambda: iter(Dataset.from_dict(rows)), features=Dataset.from_dict(rows).features
        ),
        inputs={"tokens": "tokens"},
        labels={"pos": "pos"},
        tasks=[TASK],
        tokenizer=tokenizer,
        max_length=20,
        stride=3,
        num_rows=1,
    )
    assert (stream.max_length, stream.stride) == (20, 3)


def test_pipeline_uses_the_windows_of_the_training_data(tokenizer, encoder_folder, tmp_path):
    model = MultitaskModel.from_encoder(encoder_folder("bert"), [TASK])
    data = encoded(tokenizer, max_length=20, stride=3)
    arguments = MultitaskTrainingArguments(str(tmp_path / "run"), max_steps=1, disable_tqdm=True, save_strategy="no")
    trainer = MultitaskTrainer(model, arguments, None, TaskMixture({"d": data}), {"d": data}, tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    answer = pipeline("multitask", model=str(tmp_path / "saved"), device="cpu")
    (text,) = answer.preprocess([{"tokens": WORDS}])
    assert [window.input_ids for window in text.windows] == data.windows["input_ids"][:]
    assert max(len(window.input_ids) for window in text.windows) == 20
    MultitaskTrainer(answer.model, arguments, None, TaskMixture({"d": data}), None, tokenizer)
    with pytest.raises(ValueError, match=r"`max_length` 20, but the data does not: d has `max_length` 12 and"):
        MultitaskTrainer(
            answer.model,
            arguments,
            train_dataset=TaskMixture({"d": encoded(tokenizer, max_length=12)}),
            processing_class=tokenizer,
        )


@pytest.mark.parametrize("own", [{}, {"max_length": 20}, {"stride": 3}, {"max_length": 20, "stride": 3}])
def test_configuration_gets_missing_values_from_the_data(tokenizer, own):
    config = config_of(**own)
    agree_on_window(config, [encoded(tokenizer, max_length=20, stride=3)] * 2)
    assert (config.max_length, config.stride) == (20, 3)


def test_window_is_the_limit_of_the_encoder_if_the_tokenizer_allows_more(tokenizer):
    config = MultitaskConfig(text_config=build_config("bert", max_position_embeddings=24), tasks=[TASK])
    for _ in range(2):
        agree_on_window(config, [encoded(tokenizer)])
        assert config.max_length == 24


@pytest.mark.parametrize("own", [{}, {"max_length": 60}])
def test_window_of_the_data_may_exceed_the_limit_of_the_tokenizer(tokenizer, own):
    assert tokenizer.model_max_length == 48
    config = config_of(**own)
    agree_on_window(config, [encoded(tokenizer, max_length=60)])
    assert config.max_length == 60


def test_data_without_a_known_window_is_not_compared(tokenizer):
    config = config_of(max_length=20)
    by_hand = EncodedDataset("d", Dataset.from_dict({"length": [3]}), {}, 0, 0, "f")
    agree_on_window(config, [by_hand])
    agree_on_window(config, [])
    assert (config.max_length, config.stride) == (20, None)


@pytest.mark.parametrize(
    ("own", "window", "message"),
    [
        (
            {"max_length": 30},
            {"max_length": 20},
            r"has `max_length` 30, but .* Encode all datasets with `max_length=30`",
        ),
        (
            {"max_length": 20, "stride": 5},
            {"max_length": 20, "stride": 3},
            r"has `stride` 5, but .*`stride` 3\. Encode",
        ),
        ({"max_length": 20, "stride": 5}, {"max_length": 20}, r"has `stride` 5, but .*`stride` the default\. Encode"),
    ],
)
def test_data_with_a_different_window_than_the_model_is_refused(tokenizer, own, window, message):
    with pytest.raises(ValueError, match=message):
        agree_on_window(config_of(**own), [encoded(tokenizer, **window)])


@pytest.mark.parametrize("other", [{"max_length": 12}, {"max_length": 20, "stride": 3}])
def test_datasets_with_different_windows_are_refused(tokenizer, other):
    first, second = encoded(tokenizer, "a", max_length=20), encoded(tokenizer, "b", **other)
    found = rf"Found a has `max_length` 20 .*, and b has `max_length` {other['max_length']}"
    with pytest.raises(ValueError, match=rf"same `max_length` and `stride`\. {found}"):
        agree_on_window(config_of(), [first, second])
