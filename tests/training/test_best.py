"""The best validation score per task, and tasks that were best long before the kept model."""

from __future__ import annotations

import pytest
from transformers import TrainerState

from mtl_nlp import Regression, TextClassification, TokenClassification
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.best import best_scores, describe_falls, describe_kept, has_fallen

TASKS = {
    task.name: task
    for task in (
        TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2"),
        TextClassification(name="topic", labels=["a"]),
        Regression(name="score"),
    )
}


def history(**values: list[float | None]) -> list[dict[str, object]]:
    """Return a log with evaluations every 100 steps, between entries of the loss."""
    entries: list[dict[str, object]] = []
    for number in range(max(map(len, values.values()))):
        step = 100 * (number + 1)
        entries.append({"step": step, "loss": 1.0, "loss_ner": 0.5})
        entries.append({"step": step, **{key: each[number] for key, each in values.items()}})
    return [*entries, {"step": step, "train_loss": 0.5}]


def test_each_task_has_its_first_best_evaluation_of_its_primary_score():
    log = history(
        eval_ner_f1=[0.2, 0.7, 0.7, 0.6],
        eval_ner_precision=[0.9, 0.1, 0.1, 0.1],
        eval_topic_accuracy=[0.1, 0.2, 0.3, 0.4],
    )
    assert best_scores(log, TASKS, 400) == {
        "ner": {"score": "f1", "value": 0.7, "step": 200, "kept_value": 0.6, "kept_step": 400, "fell": False},
        "topic": {"score": "accuracy", "value": 0.4, "step": 400, "kept_value": 0.4, "kept_step": 400, "fell": False},
    }


def test_scores_that_are_not_defined_are_left_out():
    assert best_scores(history(eval_score_pearson=[None, 0.1, None]), TASKS, 300) == {
        "score": {"score": "pearson", "value": 0.1, "step": 200, "kept_value": None, "kept_step": None, "fell": False}
    }
    nan = float("nan")
    assert best_scores(history(eval_score_pearson=[nan, 0.1, nan]), TASKS, 300)["score"]["value"] == 0.1
    assert best_scores(history(eval_score_pearson=[None]), TASKS, 100) == {}
    assert best_scores(history(eval_score_pearson=[nan]), TASKS, 100) == {}
    assert best_scores([], TASKS, 100) == {}


def test_a_kept_model_without_an_evaluation_has_no_value():
    found = best_scores(history(eval_ner_f1=[0.9, 0.1]), TASKS, 250)["ner"]
    assert (found["kept_value"], found["kept_step"], found["fell"]) == (None, None, False)


@pytest.mark.parametrize(
    ("values", "kept", "fell"),
    [
        ([0.60, 0.71, 0.70, 0.70, 0.69, 0.69, 0.68], 7, True),  # early, and the fall exceeds the usual 0.01
        ([0.60, 0.71, 0.66, 0.71, 0.65, 0.70, 0.68], 7, False),  # neighbours differ by 0.05 as well
        ([0.60, 0.65, 0.66, 0.67, 0.69, 0.71, 0.60], 7, False),  # best at 86 % of the steps
        ([0.60, 0.71, 0.70, 0.70, 0.69, 0.69, 0.68], 2, False),  # the best model was kept
        ([0.60, 0.71, 0.70, 0.65, 0.90], 4, False),  # best after the kept model
        ([0.600, 0.712, 0.711, 0.711, 0.710, 0.710, 0.709], 7, False),  # the fall exceeds the noise, and is tiny
        ([0.71, 0.60], 2, False),  # two evaluations show no noise to compare with
        ([0.71], 1, False),
    ],
)
def test_a_task_has_fallen_if_it_was_best_early_and_lost_more_than_neighbours_differ(values, kept, fell):
    by_step = dict(enumerate(values, start=1))
    best = max(by_step, key=lambda step: by_step[step])
    assert has_fallen(by_step, best, kept) is fell


def test_a_fall_is_described_in_one_line():
    log = history(eval_ner_f1=[0.6, 0.712, 0.7, 0.69, 0.69, 0.683], eval_topic_accuracy=[0.1] * 6)
    best = best_scores(log, TASKS, 600)
    assert describe_falls(best, frozen=["ner"]) == []
    assert describe_falls(best) == [
        "ner was best at step 200 (0.712 on validation) and fell to 0.683 at the kept step 600: interference or "
        "overfitting. A training of ner alone shows which: mtl-nlp compare"
    ]


def test_the_kept_step_is_named(tmp_path):
    keeps = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    args = MultitaskTrainingArguments(output_dir=str(tmp_path), **keeps)
    state = TrainerState(global_step=9, best_global_step=6, best_model_checkpoint="c", best_metric=0.51234)
    assert describe_kept(state, args) == ["the model of step 6 of 9 is kept, the best by mtl_score (0.5123)"]
    assert describe_kept(state, MultitaskTrainingArguments(output_dir=str(tmp_path))) == []
