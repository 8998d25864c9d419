from __future__ import annotations

import pytest
from toy_splits import TASKS

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.training.defaults import default_loss_weights, describe_defaults, head_learning_rate


def some(*names: str) -> dict:
    return {name: TASKS[name] for name in names}


@pytest.mark.parametrize(
    ("given", "tasks", "rate"),
    [(None, ["pos"], None), (None, ["pos", "ner"], 1e-3), (3e-4, ["pos", "ner"], 3e-4), (3e-4, ["pos"], 3e-4)],
)
def test_heads_of_several_tasks_learn_faster_unless_a_rate_is_given(tmp_path, given, tasks, rate):
    args = MultitaskTrainingArguments(str(tmp_path), learning_rate=2e-4, head_learning_rate=given)
    assert head_learning_rate(args, tasks) == rate


@pytest.mark.parametrize(
    ("tasks", "weights"),
    [
        (["topic"], {}),
        (["topic", "score"], {}),
        (["pos", "ner"], {}),
        (["pos", "topic", "score"], {"topic": 0.3, "score": 0.3}),
    ],
)
def test_tasks_on_texts_weigh_less_beside_tasks_on_words(tasks, weights):
    assert default_loss_weights(some(*tasks)) == weights


def test_lines_name_the_keys_that_are_not_given(tmp_path):
    args = MultitaskTrainingArguments(str(tmp_path), learning_rate=2e-4)
    of_head, of_topic = describe_defaults(args, some("pos", "topic"), is_static=True)
    assert of_head.startswith("training.head_learning_rate is 0.001, 5 times learning_rate")
    assert of_topic.startswith("loss.weights.topic is 0.3")
    assert describe_defaults(args, some("pos", "topic"), is_static=False) == [of_head]
    assert describe_defaults(args, some("topic"), is_static=True) == []
    args = MultitaskTrainingArguments(str(tmp_path), head_learning_rate=1e-3, loss_weights={"topic": 1.0})
    assert describe_defaults(args, some("pos", "topic"), is_static=True) == []
