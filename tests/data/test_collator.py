from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset

from mtl_nlp.data.collator import MultitaskDataCollator, WithFeatures, checked_batch
from mtl_nlp.data.rows import FlatRows
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.label_kinds_multitask import IGNORED
from mtl_nlp.modeling.tasks_multitask import task_from_dict

TASKS = {
    name: task_from_dict({"name": name, "type": kind, "labels": labels})
    for name, kind, labels in (
        ("pos", "token-classification", ["N", "V"]),
        ("topic", "text-classification", ["a", "b"]),
        ("tags", "multi-label-classification", ["x", "y", "z"]),
        ("score", "regression", []),
    )
}


def row(length: int, positions: list[int] | None = None, **labels: Any) -> dict[str, Any]:
    return {
        "input_ids": list(range(10, 10 + length)),
        "token_type_ids": [1] * length,
        "positions": positions or [],
        **{f"label:{task}": value for task, value in labels.items()},
    }


@pytest.fixture
def collator(tokenizers):
    return MultitaskDataCollator(tokenizers["wordpiece"], TASKS)


def test_rows_of_different_datasets_form_one_batch(collator):
    batch = collator(
        [
            row(4, [1, 3], pos=[0, 1], topic=1),
            row(6, tags=[0.0, 1.0, 1.0], score=2.5),
            row(5, [2], pos=[1], topic=None, score=0.5),
        ]
    )
    assert batch["input_ids"].tolist()[0] == [10, 11, 12, 13, 0, 0]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 1, 1, 1, 0]]
    assert batch["token_type_ids"].tolist()[0] == [1, 1, 1, 1, 0, 0]
    assert {task: rows.tolist() for task, rows in batch["rows"].items()} == {
        "pos": [0, 2],
        "topic": [0],
        "tags": [1],
        "score": [1, 2],
    }
    assert batch["labels"]["pos"].tolist() == [
        [IGNORED, 0, IGNORED, 1, IGNORED, IGNORED],
        [IGNORED, IGNORED, 1, IGNORED, IGNORED, IGNORED],
    ]
    assert batch["labels"]["topic"].tolist() == [1]
    assert batch["labels"]["tags"].tolist() == [[0.0, 1.0, 1.0]]
    assert batch["labels"]["score"].tolist() == [2.5, 0.5]


@pytest.mark.parametrize(
    ("task", "dtype", "shape"),
    [
        ("pos", torch.int64, (0, 4)),
        ("topic", torch.int64, (0,)),
        ("tags", torch.float32, (0, 3)),
        ("score", torch.float32, (0,)),
    ],
)
def test_task_without_rows_is_in_the_batch_with_zero_rows(collator, task, dtype, shape):
    labelled = {"pos": [0], "topic": 1, "tags": [0.0, 0.0, 1.0], "score": 1.0}
    empty = collator([row(4)])
    assert empty["rows"][task].dtype == torch.int64
    assert (empty["labels"][task].dtype, tuple(empty["labels"][task].shape)) == (dtype, shape)
    full = collator([row(4, [1], **labelled)])
    assert (full["labels"][task].dtype, tuple(full["labels"][task].shape)) == (dtype, (1, *shape[1:]))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_batch_has_type_ids_only_if_the_tokenizer_gives_them(tokenizers, kind):
    batch = MultitaskDataCollator(tokenizers[kind], TASKS)([row(4, topic=1)])
    assert ("token_type_ids" in batch) == (kind == "wordpiece")


def test_padding_is_that_of_the_tokenizer(tokenizers):
    tokenizer = tokenizers["bpe"]
    assert tokenizer.pad_token_id == 0
    batch = MultitaskDataCollator(tokenizer, TASKS, pad_to_multiple_of=8)([row(3), row(9)])
    assert batch["input_ids"].shape == (2, 16)
    assert batch["input_ids"][0, 3:].tolist() == [tokenizer.pad_token_id] * 13
    assert batch["labels"]["pos"].shape == (0, 16)


def test_text_without_words_has_no_labels(collator):
    batch = collator([row(2, [], pos=[])])
    assert batch["rows"]["pos"].tolist() == [0]
    assert batch["labels"]["pos"].tolist() == [[IGNORED, IGNORED]]


def test_tasks_can_be_a_list(collator):
    assert MultitaskDataCollator(collator.tokenizer, list(collator.tasks.values())) == collator


def test_batch_of_an_own_collator_without_the_labels_of_tasks_is_refused(collator):
    row = {"input_ids": [1, 2], "positions": [0], "token_type_ids": [0, 0]}
    assert checked_batch(collator([row])).keys() == collator([row]).keys()
    for wrong, found in (({"input_ids": 1, "labels": 2}, "input_ids, labels"), ([], "list")):
        with pytest.raises(DataError, match=rf"^`data_collator` should return .*Found {found}\.$"):
            WithFeatures(lambda features, batch=wrong: batch)([row])


def test_batch_has_weights_if_a_row_has_one(collator):
    assert "weights" not in collator([row(4, topic=1)])
    batch = collator([row(4, topic=1), {**row(3, score=0.5), "weight": 2.5}])
    assert (batch["weights"].tolist(), batch["weights"].dtype) == ([1.0, 2.5], torch.float32)


def test_own_collator_gets_a_list_of_rows_that_it_may_change(collator):
    class Masking(MultitaskDataCollator):
        def __call__(self, features):
            assert isinstance(features, list)
            for feature in features:
                feature["input_ids"] = [9] * len(feature["input_ids"])
            return super().__call__(features)

    split = Dataset.from_list([row(4, topic=1), row(6, topic=0)])
    rows = FlatRows(split).__getitems__([0, 1])
    masking = Masking(collator.tokenizer, collator.tasks)
    assert set(WithFeatures(masking)(rows)[1]["input_ids"][1].tolist()) == {9}
