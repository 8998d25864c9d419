"""What tasks learn from the training labels: of splits, of streams, and of encoded data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from small_datasets import TEXT, load, write

from mtl_nlp import MultiLabelClassification, Regression, Task, TaskMixture, TextClassification, encode
from mtl_nlp.data.learning import learn_fed_tasks, learn_from_splits, learn_tasks
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.errors import DataError

SCORE, TAGS = Regression(name="score"), MultiLabelClassification(name="tags", labels=["x", "y"], pos_weight="balanced")
TOPIC = TextClassification(name="topic", labels=["a", "b"], class_weights="balanced")
ROWS = [
    {"text": "one", "score": 1.0, "topic": "a", "tags": ["x"]},
    {"text": "two", "score": 3.0, "topic": "a", "tags": []},
    {"text": "three", "score": None, "topic": "a", "tags": ["x", "y"]},
    {"text": "four", "score": 5.0, "topic": "b", "tags": None},
]
LABELS = {name: name for name in ("score", "topic", "tags")}
EXPECTED = {
    "score": {"mean": 3.0, "sd": pytest.approx((8 / 3) ** 0.5)},
    "topic": {"balanced_weights": {"a": pytest.approx(2 / 3), "b": 2.0}},
    "tags": {"balanced_weights": {"x": 0.5, "y": 2.0}},
}


def loaded(folder: Path, **options: Any) -> LoadedDataset:
    file = write(folder / "a.jsonl", *ROWS)
    return load(folder, TEXT, LABELS, data_files={"train": file}, **options)


def found(tasks: dict[str, Task]) -> dict[str, dict[str, Any]]:
    return {name: {key: task.to_dict()[key] for key in task.learned} for name, task in tasks.items()}


TASKS = {task.name: task for task in (SCORE, TOPIC, TAGS)}


@pytest.mark.parametrize("options", [{}, {"streaming": True}])
def test_tasks_learn_from_the_training_rows(tmp_path, options):
    assert found(learn_from_splits(TASKS, {"d": loaded(tmp_path, **options)}, {})) == EXPECTED


def test_several_datasets_count_together_and_a_known_task_keeps_what_it_has_learned(tmp_path):
    data = {"a": loaded(tmp_path), "b": loaded(tmp_path, streaming=True)}
    known = {"score": Regression(name="score", mean=7.0, sd=2.0), "topic": TextClassification(name="topic")}
    learned = found(learn_from_splits(TASKS, data, known))
    assert learned == EXPECTED | {"score": {"mean": 7.0, "sd": 2.0}}
    assert "mean" not in learn_from_splits(TASKS, data, {"score": Regression(name="score")})["score"].to_dict()


def test_stream_that_is_not_read_is_refused_for_a_task_that_needs_its_labels(tmp_path):
    file = write(tmp_path / "a.jsonl", *ROWS)
    data = load(tmp_path, TEXT, {"score": "score"}, data_files={"train": file}, streaming=True, num_rows=4)
    with pytest.raises(
        DataError, match=r"^datasets\.d\.num_rows: `normalize: true` of task 'score' needs all training"
    ):
        learn_from_splits({"score": SCORE}, {"d": data}, {})
    assert learn_from_splits({"score": Regression(name="score", normalize=False)}, {"d": data}, {})


def test_tasks_learn_from_encoded_data_without_a_recipe(tokenizers):
    rows = Dataset.from_list(ROWS)
    tasks = list(TASKS.values())
    encoded = encode(rows, inputs=TEXT, labels=LABELS, tasks=tasks, tokenizer=tokenizers["wordpiece"])
    assert found({task.name: task for task in learn_tasks(tasks, [encoded])}) == EXPECTED
    with pytest.raises(DataError, match=r"Task 'other': `normalize: true` needs training labels\. Found none"):
        learn_tasks([Regression(name="other")], [encoded])


def test_tasks_of_a_mixture_of_raw_rows_have_learned_from_all_rows_that_were_read(tokenizers):
    given = {"inputs": TEXT, "tokenizer": tokenizers["wordpiece"]}
    rows, other = Dataset.from_list(ROWS), Regression(name="other")
    mixture = TaskMixture({"a": rows, "b": rows}, labels=LABELS, tasks=[*TASKS.values(), other], **given)
    *learned, unfed = mixture.tasks
    assert found({task.name: task for task in learned}) == EXPECTED
    assert unfed == other
    stream = encode(rows.to_iterable_dataset(), labels={"score": "score"}, tasks=[SCORE], num_rows=4, **given)
    assert learn_fed_tasks([SCORE, TOPIC], [stream, mixture.datasets["a"]]) == [SCORE, learned[1]]
