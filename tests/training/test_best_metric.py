from __future__ import annotations

import dataclasses

import pytest

from mtl_nlp import TextClassification
from mtl_nlp.training.best_metric import check_best_metric

EVERY_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}


@pytest.fixture
def checked(trainer_of, disjoint):
    """metric -> nothing; the check of the metric with evaluations of `pos` and `ner`, and without those of `topic`."""
    trainer = trainer_of(disjoint, disjoint)

    def check(metric, strategy="epoch", sets=None):
        args = dataclasses.replace(trainer.args, eval_strategy=strategy, metric_for_best_model=metric)
        check_best_metric(args, sets or {"": {"words": disjoint["words"]}}, trainer.tasks)

    return check


def test_metrics_of_evaluations_are_accepted_and_others_are_refused_with_the_nearest(checked, disjoint):
    for metric in (None, "mtl_score", "loss", "eval_loss", "pos_accuracy", "eval_pos_accuracy", "ner_f1", "pos_loss"):
        checked(metric)
    checked("nonsense", strategy="no")
    with pytest.raises(
        ValueError, match=r"^`metric_for_best_model` should be .* Found 'ner_f2'\. Did you mean 'ner_f1'\?"
    ):
        checked("ner_f2")
    with pytest.raises(ValueError, match=r"Found 'f1'\. .*Valid: .*mtl_score, ner_f1"):
        checked("f1")
    with pytest.raises(ValueError, match="needs a validation split with labels of the task 'topic', which has none"):
        checked("topic_accuracy")
    sets = {"a": {"words": disjoint["words"]}, "b": {"texts": disjoint["texts"]}}
    checked("b_topic_accuracy", sets=sets)
    with pytest.raises(ValueError, match="needs a validation split with labels of the task 'pos'"):
        checked("b_pos_accuracy", sets=sets)


def test_a_task_whose_labels_are_all_missing_has_no_score(trainer_of, disjoint):
    words = dataclasses.replace(disjoint["words"], references={**disjoint["words"].references, "ner": [None] * 16})
    trainer = trainer_of(disjoint, disjoint, **EVERY_EPOCH, metric_for_best_model="ner_f1")
    with pytest.raises(ValueError, match="needs a validation split with labels of the task 'ner'"):
        check_best_metric(trainer.args, {"": {"words": words}}, trainer.tasks)


def test_training_refuses_an_unknown_metric_before_its_first_step(trainer_of, disjoint):
    trainer = trainer_of(disjoint, disjoint, **EVERY_EPOCH, metric_for_best_model="pos_acuracy")
    with pytest.raises(ValueError, match="Did you mean 'pos_accuracy'"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_scores_of_own_functions_may_have_any_name(trainer_of, disjoint):
    trainer = trainer_of(disjoint, disjoint, **EVERY_EPOCH, metric_for_best_model="topic_mine")
    task = TextClassification(name="topic", labels=["a", "b"])
    kind = task.kind
    kind.metric = lambda predictions, references: {"mine": 1.0}
    tasks = {**trainer.tasks, "topic": _WithKind(task, kind)}
    check_best_metric(trainer.args, {"": disjoint}, tasks)


class _WithKind:
    def __init__(self, task, kind) -> None:
        self.name, self.kind = task.name, kind
