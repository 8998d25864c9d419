from __future__ import annotations

import pytest
from toy_splits import TASKS
from trainers import build_model

from mtl_nlp import MultitaskModel, MultitaskTrainingArguments, WeightingStep
from mtl_nlp.balancing.static import Static
from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.training.defaults import default_loss_weights, head_learning_rate, heads_with_rate, loss_weighting_of


def some(*names: str) -> dict:
    return {name: TASKS[name] for name in names}


@pytest.mark.parametrize(
    ("given", "tasks", "rate"),
    [(None, ["pos"], None), (None, ["pos", "ner"], 4e-3), (3e-4, ["pos", "ner"], 3e-4), (3e-4, ["pos"], 3e-4)],
)
def test_heads_of_several_tasks_learn_faster_unless_a_rate_is_given(tmp_path, given, tasks, rate):
    args = MultitaskTrainingArguments(str(tmp_path), learning_rate=2e-4, head_learning_rate=given)
    assert head_learning_rate(args, tasks) == rate


def test_heads_of_a_trained_model_have_the_rate_only_if_it_is_given(tmp_path):
    build_model().save_pretrained(tmp_path)
    model = MultitaskModel.from_pretrained(tmp_path)
    args = MultitaskTrainingArguments(str(tmp_path))
    assert len(heads_with_rate(args, build_model())) == len(TASKS)
    assert heads_with_rate(args, model) == []
    model.drop_task("ner")
    model.add_task(TASKS["ner"])
    assert heads_with_rate(args, model) == [model.heads_by_task["ner"]]
    assert heads_with_rate(MultitaskTrainingArguments(str(tmp_path), head_learning_rate=1e-3), model) == list(
        model.heads
    )


@pytest.mark.parametrize(
    ("tasks", "weights"),
    [
        (["topic"], {}),
        (["topic", "score"], {}),
        (["pos"], {}),
        (["ner"], {}),
        (["pos", "ner"], {"ner": 3.0}),
        (["ner", "topic"], {"topic": 0.6}),
        (["pos", "topic", "score"], {"topic": 0.6, "score": 0.6}),
        (["pos", "ner", "topic"], {"ner": 3.0, "topic": 0.6}),
    ],
)
def test_tasks_on_texts_weigh_less_and_spans_weigh_more_beside_tasks_on_words(tasks, weights):
    assert default_loss_weights(some(*tasks)) == weights


def test_given_weights_come_before_default_weights_and_exclude_a_weighting(tmp_path):
    tasks = some("pos", "topic", "score")
    args = MultitaskTrainingArguments(str(tmp_path), loss_weights={"topic": 2.0})
    chosen = loss_weighting_of(args, tasks, tasks, None)
    values = {task: weight.item() for task, weight in chosen.weights(WeightingStep(StepCounts(0, {}, {}), {})).items()}
    assert values == pytest.approx({"topic": 2.0, "score": 0.6})
    off = MultitaskTrainingArguments(str(tmp_path), loss_weights={"topic": 0.0})
    with pytest.raises(ValueError, match="some task should have a loss weight above 0"):
        loss_weighting_of(off, tasks, some("topic"), None)
    with pytest.raises(ValueError, match="exclude a `loss_weighting`"):
        loss_weighting_of(args, tasks, tasks, Static())
    given = Static()
    assert loss_weighting_of(MultitaskTrainingArguments(str(tmp_path)), tasks, tasks, given) is given
