from __future__ import annotations

import math

import pytest
from toy_splits import TASKS
from weighting_steps import NOTHING, numbers_of

from mtl_nlp import MultiLabelClassification, TextClassification
from mtl_nlp.balancing.log_classes import LogClasses


def test_weight_is_the_inverse_loss_of_a_uniform_prediction():
    tasks = {**TASKS, "tags": MultiLabelClassification(name="tags", labels=["x", "y", "z"])}
    found = numbers_of(LogClasses(tasks).weights(NOTHING))
    expected = {"pos": 3, "ner": 3, "topic": 2, "tags": 2}
    assert found == pytest.approx({**{task: 1 / math.log(n) for task, n in expected.items()}, "score": 1.0})


@pytest.mark.parametrize("labels", [[], ["only"]])
def test_task_with_fewer_than_two_classes_has_the_weight_1(labels):
    task = TextClassification(name="topic", labels=labels)
    assert numbers_of(LogClasses({"topic": task}).weights(NOTHING)) == {"topic": 1.0}


def test_weights_are_constant_and_have_no_state():
    assert LogClasses.is_constant
    assert not LogClasses(TASKS).state_dict()
