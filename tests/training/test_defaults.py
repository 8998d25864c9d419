from __future__ import annotations

import pytest
from toy_splits import TASKS

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.training.defaults import default_loss_weights, head_learning_rate


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
