"""Predictions and labels as arrays, and the metrics of the user's functions."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from toy_splits import TASKS

from mtl_nlp import EncodedDataset
from mtl_nlp.evaluation.arrays import arrays_of, check_names, own_metrics, stacked, with_prefix


def split(**references) -> EncodedDataset:
    columns = Dataset.from_dict(references)
    return EncodedDataset("d", columns, {task: columns[task] for task in references}, 0, 0, "f")


def test_arrays_of_different_lengths_are_padded():
    values = [np.ones((2, 3)), None, np.zeros((1, 3))]
    result = stacked(values, -100)
    assert result.shape == (3, 2, 3)
    assert result[0].tolist() == [[1, 1, 1]] * 2
    assert (result[1] == -100).all()
    assert result[2].tolist() == [[0, 0, 0], [-100, -100, -100]]
    assert stacked([np.array(1.5), None], np.nan)[0] == 1.5
    assert stacked([None], -100) is None


def test_labelled_rows_of_all_datasets_follow_each_other():
    datasets = {
        "a": split(pos=[["A", "B"], None], score=[1.5, None]),
        "b": split(pos=[["C"]], topic=["sport"]),
    }
    words = {0: np.zeros((2, 3)), 1: np.ones((1, 3))}
    one = {0: np.zeros((1, 3))}
    values = {
        "a": {"pos": words, "score": {0: np.zeros(1), 1: np.ones(1)}, "topic": {}},
        "b": {"pos": one, "topic": {0: np.zeros(2)}, "score": {}},
    }
    predictions, labels = arrays_of(values, datasets, TASKS)
    assert list(predictions) == list(labels) == ["pos", "topic", "score"]
    assert labels["pos"].tolist() == [[0, 1], [2, -100]]
    assert predictions["pos"].shape == (2, 2, 3)
    assert labels["topic"].tolist() == [1]
    assert labels["score"].tolist() == [1.5]
    predictions, labels = arrays_of(values, datasets, TASKS, all_rows=True)
    assert predictions["pos"].shape == (3, 2, 3)
    assert labels["pos"].tolist() == [[0, 1], [-100, -100], [2, -100]]
    assert labels["topic"].tolist() == [-100, -100, 1]
    assert labels["score"].tolist() == pytest.approx([1.5, np.nan, np.nan], nan_ok=True)
    assert predictions["score"][1] == 1.0


def test_one_function_sees_all_tasks_and_a_dict_of_functions_single_tasks():
    predictions = {"topic": np.array([[0.0, 1.0], [2.0, 1.0]]), "score": np.zeros((2, 1))}
    labels = {"topic": np.array([1, 1]), "score": None}

    def accuracy(given):
        logits, expected = given
        return {"accuracy": np.mean(logits.argmax(-1) == expected)}

    def of_all(given):
        return {"tasks": len(given.predictions), "labelled": sum(each is not None for each in given.label_ids.values())}

    assert own_metrics(of_all, predictions, labels) == {"tasks": 2, "labelled": 1}
    found = own_metrics({"topic": accuracy, "score": accuracy}, predictions, labels)
    assert found == {"topic_accuracy": 0.5}
    assert type(found["topic_accuracy"]) is float


def test_names_have_one_prefix_and_replace_no_other_name():
    assert with_prefix({"f1": 0.5, "eval_f2": 0.25, "evaluator": 1.0}, "eval") == {
        "eval_f1": 0.5,
        "eval_f2": 0.25,
        "eval_evaluator": 1.0,
    }
    check_names({"eval_own": 1.0}, {"eval_loss": 1.0}, "eval")
    for name in ("eval_loss", "eval_runtime"):
        with pytest.raises(ValueError, match=rf"^`compute_metrics` should return names .*Found {name}\. Rename"):
            check_names({name: 1.0}, {"eval_loss": 1.0}, "eval")
