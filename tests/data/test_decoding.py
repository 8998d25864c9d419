"""Encoded datasets turned back into rows."""

from __future__ import annotations

from datasets import Dataset

from mtl_nlp import TextClassification, TokenClassification, encode
from mtl_nlp.data.decoding import decoded_rows


def test_rows_keep_their_texts_labels_and_weights(tokenizers):
    tasks = [TokenClassification("pos", ["A"]), TextClassification("topic", ["news", "sport"])]
    columns = {"words": [["a"], ["b"] * 30, ["c"]], "tags": [["A"], ["A"] * 30, None], "kind": ["news", None, None]}
    encoded = encode(
        Dataset.from_dict(columns | {"sure": [0.5, 2.0, 3.0]}),
        inputs={"tokens": "words"},
        labels={"pos": "tags", "topic": "kind"},
        tasks=tasks,
        tokenizer=tokenizers["wordpiece"],
        max_length=20,
        weight="sure",
    )
    rows = decoded_rows(encoded, {"topic": tasks[1]})
    assert rows["tokens"][:] == columns["words"]
    assert rows["label:topic"][:] == columns["kind"]
    assert rows["weight"][:] == [0.5, 2.0, 1.0]  # the last row has no label
    assert "label:pos" not in rows.column_names
