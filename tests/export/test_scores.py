from __future__ import annotations

from datasets import Dataset
from exports import (
    POS,
    TEXTS,
    TOPIC,
)
from toys import build_model, lively_model

from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import encode_dataset
from mtl_nlp.evaluation.evaluator import score_model
from mtl_nlp.export.scores import compare_scores


def test_scores_are_compared_on_the_same_rows_in_points(tokenizers):
    tasks = {"topic": TOPIC, "pos": POS}
    rows = {"tokens": [text.split() for text in TEXTS], "topic": ["news", "sport", "news"]}
    rows["pos"] = [["NOUN"] * len(tokens) for tokens in rows["tokens"]]
    data = canonical_rows(
        Dataset.from_dict(rows), "d", inputs={"tokens": "tokens"}, labels={"topic": "topic", "pos": "pos"}, tasks=tasks
    )
    encoded = {"d": encode_dataset("d", data, tasks, tokenizers["wordpiece"], reads_words=True, max_length=48)}
    models = [lively_model(list(tasks.values())), build_model(list(tasks.values()))]
    before, after = (score_model(model, encoded, tasks, tokenizers["wordpiece"]).scores for model in models)
    assert before != after
    compared = compare_scores(*models, encoded, tokenizers["wordpiece"])
    assert [row[:2] for row in compared] == [(task, name) for task in tasks for name in before[task]]
    for task, name, one, other, points in compared:
        assert (one, other) == (round(before[task][name], 4), round(after[task][name], 4))
        assert points == round(100 * (after[task][name] - before[task][name]), 2)
