from __future__ import annotations

import pytest

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.training.defaults import describe_defaults, head_learning_rate


@pytest.mark.parametrize(
    ("given", "tasks", "rate"),
    [(None, ["pos"], None), (None, ["pos", "ner"], 1e-3), (3e-4, ["pos", "ner"], 3e-4), (3e-4, ["pos"], 3e-4)],
)
def test_heads_of_several_tasks_learn_faster_unless_a_rate_is_given(tmp_path, given, tasks, rate):
    args = MultitaskTrainingArguments(str(tmp_path), learning_rate=2e-4, head_learning_rate=given)
    assert head_learning_rate(args, tasks) == rate
    lines = describe_defaults(args, tasks)
    assert len(lines) == (given is None and len(tasks) > 1)
    assert all(line.startswith("training.head_learning_rate: 0.001, 5 times learning_rate, since") for line in lines)
