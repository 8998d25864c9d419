"""Four tasks and random texts for them, for the tests of the trainer in one process and in several processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mtl_nlp import EncodedDataset, Regression, TextClassification, TokenClassification
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import encode_dataset

TASKS = {
    task.name: task
    for task in (
        TokenClassification(name="pos", labels=["A", "B", "C"]),
        TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2"),
        TextClassification(name="topic", labels=["news", "sport"]),
        Regression(name="score"),
    )
}
BAD_ROW = 9
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "ada", "lives", "in", "paris"]


def build_split(
    tokenizer: PreTrainedTokenizerBase, seed: int, lengths: list[int], labels: dict[str, Callable[[int], bool]]
) -> EncodedDataset:
    """Build random texts of the given lengths; `labels` says for each task which lengths carry its label."""
    rng = np.random.default_rng(seed)
    make = {
        "pos": lambda n: rng.choice(["A", "B", "C"], size=n).tolist(),
        "ner": lambda n: rng.choice(["O", "B-X"], size=n).tolist(),
        "topic": lambda n: str(rng.choice(["news", "sport"])),
        "score": lambda n: float(rng.normal()),
    }
    columns = {"tokens": [rng.choice(WORDS, size=n).tolist() for n in lengths]}
    columns |= {task: [make[task](n) if has(n) else None for n in lengths] for task, has in labels.items()}
    named = {task: task for task in labels}
    rows = canonical_rows(Dataset.from_dict(columns), "d", inputs={"tokens": "tokens"}, labels=named, tasks=TASKS)
    return encode_dataset("d", rows, TASKS, tokenizer, reads_words=True, max_length=48)


def split_with_bad_row(tokenizer: PreTrainedTokenizerBase) -> EncodedDataset:
    """Build twelve texts with a score. The score of `BAD_ROW` is finite in float32, but has an infinite square."""
    scores = [3e38 if row == BAD_ROW else 1.0 for row in range(12)]
    columns = {"tokens": [["ada", "lives"] * (row + 1) for row in range(12)], "score": scores}
    rows = canonical_rows(
        Dataset.from_dict(columns), "d", inputs={"tokens": "tokens"}, labels={"score": "score"}, tasks=TASKS
    )
    return encode_dataset("d/train", rows, TASKS, tokenizer, reads_words=True, max_length=48)
