from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value, load_from_disk

from mtl_nlp import encode as encode_raw
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import EncodedDataset, encode_dataset
from mtl_nlp.data.labels import count_unseen
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.label_kinds_multitask import IGNORED
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict

KINDS = ("wordpiece", "bpe", "unigram")
COLUMNS = {
    "tokens": List(Value("string")),
    "text": Value("string"),
    "text_pair": Value("string"),
    "pos": List(Value("string")),
    "topic": Value("string"),
    "tags": List(Value("string")),
    "score": Value("float64"),
}
TASKS: dict[str, Task] = {
    name: task_from_dict({"name": name, "type": kind, "labels": labels})
    for name, kind, labels in (
        ("pos", "token-classification", ["N", "V", "P"]),
        ("topic", "text-classification", ["a", "b"]),
        ("tags", "multi-label-classification", ["x", "y"]),
        ("score", "regression", []),
    )
}


def canonical(columns: dict[str, list[Any]]) -> Dataset:
    rows = Dataset.from_dict(columns, features=Features({name: COLUMNS[name] for name in columns}))
    labels = {name: name for name in columns if name in TASKS}
    inputs = {name: name for name in columns if name not in TASKS}
    return canonical_rows(rows, "d/train", inputs=inputs, labels=labels, tasks=TASKS)


def encode(tokenizer: Any, columns: dict[str, list[Any]], **options: Any) -> EncodedDataset:
    return encode_dataset("d/train", canonical(columns), TASKS, tokenizer, **{"reads_words": True, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_on_the_first_sub_word_of_each_word(tokenizers, kind):
    tokenizer = tokenizers[kind]
    words = ["Ada", "unbelievable", "Xylophonist", ".", "日本"]
    encoded = encode(tokenizer, {"tokens": [words], "pos": [["N", "V", "P", "N", "V"]]})
    (window,) = encoded.windows.to_list()
    assert window["label:pos"] == [0, 1, 2, 0, 1]
    assert window["words"] == [0, 1, 2, 3, 4]
    expected = tokenizer(words, is_split_into_words=True)
    assert window["input_ids"] == expected["input_ids"]
    assert window["positions"] == [expected.word_ids().index(word) for word in range(5)]
    assert window["length"] == len(window["input_ids"]) > len(words) + 2
    assert ("token_type_ids" in window) == (kind == "wordpiece")


def test_rows_can_lack_labels_and_unlabelled_rows_are_counted_and_skipped(tokenizers):
    columns = {"tokens": [["Ada"], ["the", "dog"], ["fox"]], "pos": [["N"], None, None], "topic": [None, None, "b"]}
    encoded = encode(tokenizers["wordpiece"], columns)
    first, second = encoded.windows.to_list()
    assert (first["row"], first["label:pos"], first["label:topic"]) == (0, [0], None)
    assert (second["row"], second["label:pos"], second["label:topic"]) == (2, None, 1)
    assert (encoded.num_rows, encoded.unlabelled) == (3, 1)
    assert encoded.references["topic"][:] == [None, None, "b"]


def test_split_without_any_label_is_an_error(tokenizers):
    with pytest.raises(DataError, match=r"^d/train: no row has a label for any of pos, topic"):
        encode(tokenizers["wordpiece"], {"tokens": [["Ada"]], "pos": [None], "topic": [None]})


def test_labels_are_encoded_by_their_task(tokenizers):
    columns = {"text": ["the dog"], "topic": ["b"], "tags": [["y"]], "score": [2.5]}
    (window,) = encode(tokenizers["wordpiece"], columns, reads_words=False).windows.to_list()
    assert (window["label:topic"], window["label:tags"], window["label:score"]) == (1, [0.0, 1.0], 2.5)


def test_unseen_labels_are_counted_and_have_no_loss(tokenizers):
    columns = {"tokens": [["Ada", "fox"]], "pos": [["N", "?"]], "topic": ["new"], "tags": [["x", "new"]]}
    encoded = encode(tokenizers["wordpiece"], columns)
    (window,) = encoded.windows.to_list()
    assert (window["label:pos"], window["label:topic"], window["label:tags"]) == ([0, IGNORED], IGNORED, [1.0, 0.0])
    assert [count_unseen(encoded, TASKS[task]) for task in ("pos", "topic", "tags")] == [
        {"?": 1},
        {"new": 1},
        {"new": 1},
    ]
    assert encoded.references["pos"][0] == ["N", "?"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("max_length", "stride"), [(10, 0), (12, 3), (48, None)])
def test_long_rows_are_cut_into_windows_with_every_word_labelled_once(tokenizers, kind, max_length, stride):
    rng = np.random.default_rng(0)
    vocabulary = ["Ada", "the", "unbelievable", "researchers", "fox", "."]
    texts = [rng.choice(vocabulary, size=size).tolist() for size in (1, 5, 40, 90)]
    labels = [rng.choice(["N", "V", "P"], size=len(words)).tolist() for words in texts]
    columns = {"tokens": texts, "pos": labels, "topic": ["a"] * 4}
    encoded = encode(tokenizers[kind], columns, max_length=max_length, stride=stride)
    answered: dict[int, dict[int, int]] = {row: {} for row in range(4)}
    for window in encoded.windows.to_list():
        assert window["length"] <= max_length
        assert not answered[window["row"]].keys() & set(window["words"])
        answered[window["row"]].update(zip(window["words"], window["label:pos"], strict=True))
    assert answered == {row: dict(enumerate(TASKS["pos"].kind.target_of(words))) for row, words in enumerate(labels)}
    assert encoded.windows["label:topic"][:].count(0) == 4
    assert encoded.extra_windows == len(encoded.windows) - 4 > 0


def test_texts_without_word_labels_are_truncated_and_counted(tokenizers):
    long = " ".join(["river"] * 60)
    for reads_words in (False, True):
        encoded = encode(
            tokenizers["wordpiece"],
            {"text": ["fox", long], "topic": ["a", "b"]},
            reads_words=reads_words,
            max_length=16,
        )
        assert (len(encoded.windows), encoded.truncated, encoded.extra_windows) == (2, 1, 0)
        assert max(encoded.lengths) <= 16


def test_pairs_are_one_window_truncated_to_the_limit(tokenizers):
    long = " ".join(["river"] * 60)
    columns = {"text": ["fox", long], "text_pair": ["dog", long], "topic": ["a", "b"]}
    encoded = encode(tokenizers["wordpiece"], columns, reads_words=False, max_length=16)
    assert encoded.truncated == 1
    assert set(encoded.windows["token_type_ids"][0]) == {0, 1}


def test_empty_texts_are_kept_and_counted(tokenizers):
    encoded = encode(tokenizers["wordpiece"], {"tokens": [[], ["fox"]], "pos": [[], ["N"]], "topic": ["a", "b"]})
    assert (len(encoded.windows), encoded.empty) == (2, 1)
    assert encoded.windows[0]["label:pos"] == []
    texts = encode(tokenizers["wordpiece"], {"text": ["", "fox", " "], "topic": ["a", "b", "a"]}, reads_words=False)
    assert (len(texts.windows), texts.empty) == (3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_words_without_sub_words_have_a_position(tokenizers, kind):
    words = ["Ada", "", "\u200b", "\u00ad", "fox"]
    (window,) = encode(tokenizers[kind], {"tokens": [words], "pos": [["N"] * 5]}).windows.to_list()
    assert window["words"] == [0, 1, 2, 3, 4]
    assert len(set(window["positions"])) == 5


def test_repaired_tags_are_summed(tokenizers):
    tasks = {"ner": task_from_dict({"name": "ner", "type": "token-classification", "scheme": "iob2", "labels": ["O"]})}
    rows = Dataset.from_dict({"tokens": [["a", "b"]] * 3, "ner": [["I-X", "O"], ["B-X", "I-X"], ["I-X", "I-Y"]]})
    rows = canonical_rows(rows, "d/train", inputs={"tokens": "tokens"}, labels={"ner": "ner"}, tasks=tasks)
    assert encode_dataset("d/train", rows, tasks, tokenizers["wordpiece"], reads_words=True).repaired == 3


@pytest.mark.parametrize("kind", KINDS)
def test_second_call_reads_the_cached_result(tokenizers, tmp_path, kind):
    columns = {"tokens": [["river"] * 40, ["fox"]], "pos": [["N"] * 40, ["V"]]}
    canonical(columns).save_to_disk(tmp_path / "rows")

    def once() -> tuple[str, set[Path]]:
        rows = load_from_disk(str(tmp_path / "rows"))
        encoded = encode_dataset("d/train", rows, TASKS, tokenizers[kind], reads_words=True, max_length=16)
        return encoded.windows._fingerprint, set((tmp_path / "rows").iterdir())

    assert once() == once()


def test_truncation_does_not_change_the_cache_key(tokenizers, tmp_path):
    columns = {"text": ["river " * 40, "fox"], "topic": ["a", "b"]}
    canonical(columns).save_to_disk(tmp_path / "rows")

    def once() -> tuple[str, set[Path]]:
        rows = load_from_disk(str(tmp_path / "rows"))
        encoded = encode_dataset("d/train", rows, TASKS, tokenizers["wordpiece"], reads_words=False, max_length=16)
        return encoded.windows._fingerprint, set((tmp_path / "rows").iterdir())

    assert once() == once()


def test_different_limit_has_a_different_cache_entry(tokenizers):
    columns = {"tokens": [["river"] * 40], "pos": [["N"] * 40]}
    prints = {encode(tokenizers["bpe"], columns, max_length=n).windows._fingerprint for n in (12, 16, 16)}
    assert len(prints) == 2


def test_weights_of_rows_are_those_of_all_their_windows(tokenizers):
    rows = Dataset.from_dict({"tokens": [["fox"] * 60, ["dog"]], "pos": [["A"] * 60, ["B"]], "w": [0.5, None]})
    tasks = [task_from_dict({"name": "pos", "type": "token-classification", "labels": ["A", "B"]})]
    encoded = encode_raw(
        rows,
        inputs={"tokens": "tokens"},
        labels={"pos": "pos"},
        tasks=tasks,
        tokenizer=tokenizers["wordpiece"],
        weight="w",
    )
    windows = encoded.windows.to_list()
    assert len(windows) > 2
    assert [window["weight"] for window in windows] == [0.5 if window["row"] == 0 else 1.0 for window in windows]
