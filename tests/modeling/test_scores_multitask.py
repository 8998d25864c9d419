"""The scores that tasks ask for."""

from __future__ import annotations

import pytest

from mtl_nlp import Regression, TextClassification, TokenClassification
from mtl_nlp.modeling.scores_multitask import SCORES, ChosenScores, choose_scores, metric_name, score_names
from mtl_nlp.modeling.tasks_multitask import MultiLabelClassification, Task, task_from_dict

KINDS = [
    TokenClassification(name="t"),
    TokenClassification(name="t", scheme="iob2"),
    TextClassification(name="t"),
    MultiLabelClassification(name="t"),
    Regression(name="t"),
]


@pytest.mark.parametrize("task", KINDS)
def test_every_kind_has_scores_among_which_is_its_own(task: Task):
    assert task.kind.primary_score in SCORES[metric_name(task.kind.metric)]


def test_scores_are_those_that_are_named_and_the_primary_one_is_among_them():
    assert choose_scores("classification", "accuracy", ["mcc", "macro_f1"], None)[1] == "mcc"
    assert choose_scores("classification", "accuracy", ["mcc", "accuracy"], None)[1] == "accuracy"
    chosen, primary = choose_scores("classification", "accuracy", None, "mcc")
    assert (chosen, primary) == (ChosenScores("classification", ("accuracy", "macro_f1", "mcc")), "mcc")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("text-classification", {"metrics": ["macrof1"]}, r"`metrics`: .*Found 'macrof1'\. Did you mean 'macro_f1'\?"),
        ("text-classification", {"metrics": ["pearson"]}, r"`metrics`: .*Found 'pearson'\. Valid: accuracy, balanced_"),
        ("regression", {"primary": "accuracy"}, r"`primary`: .*Found 'accuracy'\. Valid: pearson, spearman, r2\."),
        ("regression", {"primary": "mse"}, r"`primary`: should name scores of this task\. Found 'mse'"),
        ("regression", {"metrics": ["mse", "mae"]}, r"`metrics`: a lower value is better for all of mse, mae"),
        ("regression", {"metrics": 3}, r"`metrics`: should be a list of names of scores\. Found 3"),
        ("regression", {"metrics": []}, r"`metrics`: should be a list of names of scores\. Found \[\]"),
    ],
)
def test_scores_that_do_not_fit_are_refused_in_one_line(task, options, message):
    with pytest.raises(ValueError, match=rf"^Task 't': {message}"):
        task_from_dict({"name": "t", "type": task, **options}).kind  # noqa: B018


def test_scores_survive_in_the_configuration_and_do_not_change_the_head():
    task = TextClassification(name="t", labels=["a", "b"], metrics=["mcc"], primary="mcc")
    again = task_from_dict(task.to_dict())
    assert again == task
    assert again.kind.metric == ChosenScores("classification", ("mcc",))
    plain = TextClassification(name="t", labels=["a", "b"])
    assert "metrics" not in plain.to_dict()
    assert task.without_scores() == plain
    assert plain.with_scores_of(task) == task
    assert task.with_scores_of(plain) == task


def test_one_name_stands_for_a_list():
    assert (score_names("mcc"), score_names(None)) == (("mcc",), None)
    assert metric_name(len) is None
