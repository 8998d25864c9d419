"""What a task learns from the training labels, and what it is given."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toys import build_model

from mtl_nlp import MultiLabelClassification, Regression, Task, TextClassification, TokenClassification
from mtl_nlp.modeling.statistics_multitask import LabelStatistics
from mtl_nlp.modeling.tasks_multitask import task_from_dict


def learned(task: Task, labels: list) -> Task:
    return task.learn(LabelStatistics().add(task.kind, labels))


CASES = [
    (Regression(name="t"), [1.0, 3.0], {"mean": 2.0, "sd": 1.0}),
    (TextClassification(name="t", labels=["a", "b"], class_weights="balanced"), ["a", "a", "a", "b"],
     {"balanced_weights": {"a": 2 / 3, "b": 2.0}}),
    (TokenClassification(name="t", labels=["O", "B-X"], scheme="iob2", class_weights="balanced"), [["O", "O", "B-X"]],
     {"balanced_weights": {"O": 0.75, "B-X": 1.5}}),
    (MultiLabelClassification(name="t", labels=["a", "b"], pos_weight="balanced"), [["a"], [], []],
     {"balanced_weights": {"a": 2.0}}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "labels", "expected"), CASES)
def test_learned_options_are_stored_and_can_be_taken_from_a_task(task, labels, expected):
    assert task.missing_statistics in {"normalize: true", "class_weights: balanced", "pos_weight: balanced"}
    found = learned(task, labels)
    assert {key: found.to_dict()[key] for key in task.learned} == expected
    assert found.missing_statistics is None
    assert task_from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.as_given() == task.as_given() == task.with_labels(())
    assert task.learn_from(found) == found


def test_task_that_asks_for_nothing_learns_nothing():
    for task in (Regression(name="t", normalize=False), TextClassification(name="t", labels=["a"])):
        assert task.missing_statistics is None
        assert task.learn(LabelStatistics()) is task


def test_model_without_the_class_weights_that_a_task_asks_for_is_refused():
    with pytest.raises(ValueError, match=r"Task 't': `class_weights: balanced` needs the training labels"):
        build_model([TextClassification(name="t", labels=["a", "b"], class_weights="balanced")])


def test_options_can_name_labels_that_a_scheme_adds():
    task = TokenClassification(name="t", labels=["B-X"], scheme="iob2", class_weights={"I-X": 2.0})
    assert task.kind.class_weights == [1.0, 1.0, 2.0]


def test_regression_needs_both_mean_and_deviation():
    for given in ({"mean": 1.0}, {"sd": 1.0}, {"mean": 1.0, "sd": 0.0}):
        with pytest.raises(ValueError, match=r"`mean` and `sd` should both be given, with an `sd` above 0"):
            Regression(name="t", **given)
    with pytest.raises(ValueError, match=r"`normalize` should be true or false\. Found 'no'"):
        Regression(name="t", normalize="no")


def test_tuned_thresholds_decide_predictions_and_answers():
    task = MultiLabelClassification(name="t", labels=["a", "b"], threshold="tuned")
    assert task.needs_tuning == "threshold: tuned"
    assert task.kind.thresholds == {"a": 0.5, "b": 0.5}
    tuned = task.tune([{"a": 0.1, "b": 0.9}, {"a": 0.3, "b": 0.7}], [[], ["a"]])
    assert tuned.tuned_thresholds == {"a": pytest.approx(0.2), "b": 0.5}
    assert tuned.as_given() == task.as_given()
    logits = [-1.0, -0.5]  # probabilities of 0.27 and 0.38
    assert tuned.kind.decode(np.array(logits)) == ["a"]
    assert [entry["label"] for entry in tuned.kind.answer(np.array(logits), [], "", "predicted")] == ["a"]
    fixed = MultiLabelClassification(name="t", labels=["a", "b"], threshold=0.3)
    assert fixed.kind.decode(np.array(logits)) == ["b"]
    assert fixed.tune([], []) is fixed
