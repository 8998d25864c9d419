from __future__ import annotations

from typing import Any

from datasets import Dataset

from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.data.repeated import describe_repeated_texts


def loaded(tasks: str, **splits: list[Any]) -> LoadedDataset:
    """Return a dataset whose rows are words, pairs or texts."""
    rows = {
        split: Dataset.from_list(
            [
                {"tokens": each}
                if isinstance(each, list)
                else {"text": each[0], "text_pair": each[1]}
                if isinstance(each, tuple)
                else {"text": each}
                for each in given
            ]
        )
        for split, given in splits.items()
    }
    return LoadedDataset(rows, dict.fromkeys(tasks.split()))


def test_texts_that_are_also_in_training_are_counted_by_split():
    texts = loaded("topic", train=["a", "b", "c", "c"], validation=["a", "x", "c"], test=["x", "y"])
    words = loaded("pos", train=[["a"], ["b", "c"]], validation=[["b", "c"]], test=[["b c"]])
    pairs = loaded("nli", train=[("a", "b")], validation=[("a", "b"), ("b", "a")])
    assert describe_repeated_texts({"texts": texts, "words": words, "pairs": pairs}) == [
        "texts/validation: 2 of 3 texts are also in training; scores on validation overstate the model",
        "words/validation: 1 of 1 text is also in training; scores on validation overstate the model",
        "pairs/validation: 1 of 2 texts is also in training; scores on validation overstate the model",
    ]


def test_only_the_training_rows_of_the_same_tasks_count_and_few_texts_are_not_reported():
    first = loaded("topic", train=["a", "b"], test=["c", "d"])
    second = loaded("mood", train=["c", "d"], test=["e", *map(str, range(200))])
    assert describe_repeated_texts({"first": first, "second": second}) == []
    both = loaded("mood topic", train=["c", "d", "e"])
    assert describe_repeated_texts({"first": first, "second": second, "both": both}) == [
        "first/test: 2 of 2 texts are also in training; scores on test overstate the model"
    ]
    assert describe_repeated_texts({"first": loaded("topic", test=["a"])}) == []
