"""Predictions of all tasks for all rows, own metrics, and named evaluation sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from toy_splits import TASKS, build_split
from transformers.trainer_utils import PredictionOutput

from mtl_nlp import encode
from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.predictions import predictions_of

TEXTS = Dataset.from_dict(
    {"text": ["the quick dog", "ada lives in paris", "fox " * 70], "kind": ["news", None, "sport"]}
)
COLUMNS = {"inputs": {"text": "text"}, "labels": {"topic": "kind"}}


@pytest.fixture(scope="module")
def partly(tokenizer):
    """Six texts; two have no topic, and one has no label at all."""
    has = {"pos": lambda n: n != 5, "topic": lambda n: n > 5, "score": lambda n: n not in {5, 60}}
    return build_split(tokenizer, 4, [9, 5, 60, 3, 30, 7], has)


def test_all_rows_are_predicted_for_all_tasks_and_labelled_rows_are_scored(trainer_of, partly):
    trainer = trainer_of(validation={"d": partly})
    output = trainer.predict(partly)
    assert isinstance(output, PredictionOutput)
    predictions, label_ids, metrics = output
    assert predictions.keys() == label_ids.keys() == output.labels.keys() == TASKS.keys()
    assert predictions["pos"].shape == (6, 60, 3) and label_ids["pos"].shape == (6, 60)
    assert predictions["topic"].shape == (6, 2) and label_ids["topic"].tolist().count(-100) == 2
    assert label_ids["ner"] is None and np.isnan(label_ids["score"]).sum() == 2
    assert [len(words) for words in output.labels["ner"]] == [9, 5, 60, 3, 30, 7]
    assert (predictions["pos"][3, 3:] == -100).all()
    assert output.probabilities.keys() == {"pos", "ner", "topic"}
    for row, label in enumerate(output.labels["topic"]):
        softmax = torch.from_numpy(predictions["topic"][row]).softmax(-1)
        assert (label, output.probabilities["topic"][row]) == (
            TASKS["topic"].labels[softmax.argmax()], pytest.approx(float(softmax.max()), rel=1e-5)
        )  # fmt: skip
    scores = trainer.evaluate()
    same = [key for key in scores if key != "epoch" and "runtime" not in key and "per_second" not in key]
    assert [metrics[key.replace("eval_", "test_", 1)] for key in same] == pytest.approx(
        [scores[key] for key in same], rel=1e-4, abs=1e-5
    )
    answers = trainer.answer({"d": partly})
    for line in predictions_of(answers, {"d": partly}, "test"):
        found = output.labels[line.task][line.row]
        assert found == (pytest.approx(line.prediction, abs=1e-5) if line.task == "score" else line.prediction)


def test_raw_rows_without_labels_are_predicted(trainer_of):
    trainer = trainer_of(given=COLUMNS)
    for dataset in (TEXTS.remove_columns("kind"), {"a": TEXTS.remove_columns("kind")}):
        output = trainer.predict(dataset, metric_key_prefix="new")
        assert all(labels is None for labels in output.label_ids.values())
        assert output.metrics.keys() == {"new_runtime", "new_samples_per_second"}
        assert [len(words) for words in output.labels["pos"]] == [3, 4, 70]
    output = trainer.predict(TEXTS)
    assert output.label_ids["topic"].tolist() == [0, -100, 1]
    assert {"test_topic_accuracy", "test_loss"} <= output.metrics.keys()
    (batch,) = trainer.get_test_dataloader(TEXTS.select([0, 1]))
    assert batch["rows"]["topic"].tolist() == [0]
    for refuses in (trainer.predict, trainer.get_test_dataloader):
        with pytest.raises(DataError, match=r"^`test_dataset` should be a dataset, .*Found None\.$"):
            refuses(None)


def test_weighted_rows_have_the_same_losses_in_predictions_as_in_evaluation(trainer_of, tokenizer):
    rows = TEXTS.add_column("sure", [3.0, 1.0, 0.5])
    trainer = trainer_of(given={**COLUMNS, "weight": "sure"})
    encoded = encode(rows, **COLUMNS, tasks=list(TASKS.values()), tokenizer=tokenizer, max_length=48, weight="sure")
    unweighted = trainer.evaluate(TEXTS)["eval_topic_loss"]
    for given in (rows, encoded):
        scores, predicted = trainer.evaluate(given), trainer.predict(given).metrics
        assert scores["eval_topic_loss"] != pytest.approx(unweighted, rel=1e-3)
        for key in ("topic_loss", "loss"):
            assert predicted[f"test_{key}"] == pytest.approx(scores[f"eval_{key}"], rel=1e-4)


def test_own_metrics_see_logits_and_labels_in_the_form_of_trainer(trainer_of, disjoint):
    def accuracy(given):
        kept = given.label_ids != -100
        return {"own_accuracy": (given.predictions.argmax(-1) == given.label_ids)[kept].mean()}

    def of_all(given):
        seen.append(given)
        return {"own": np.float32(len(given.predictions))}

    seen = []
    by_task = trainer_of(validation=disjoint, given={"compute_metrics": {"pos": accuracy, "topic": accuracy}})
    metrics = by_task.evaluate()
    assert metrics["eval_pos_own_accuracy"] == pytest.approx(metrics["eval_pos_accuracy"])
    assert metrics["eval_topic_own_accuracy"] == pytest.approx(metrics["eval_topic_accuracy"])
    joint = trainer_of(validation=disjoint, given={"compute_metrics": of_all})
    assert joint.evaluate()["eval_own"] == 4.0
    prefixed = {"compute_metrics": lambda given: {"eval_f1": 0.25, "test_f1": 0.5}}
    joint = trainer_of(validation=disjoint, given=prefixed)
    assert {"eval_f1", "eval_test_f1"} <= joint.evaluate().keys()
    assert {"test_eval_f1", "test_f1"} <= joint.predict(disjoint).metrics.keys()
    assert seen[0].predictions["topic"].shape == (24, 2) and seen[0].label_ids["pos"].shape == (16, 7)


def test_own_metrics_replace_no_score_and_no_loss(trainer_of, disjoint):
    for name in ("topic_accuracy", "eval_loss", "mtl_score", "runtime"):
        given = {"compute_metrics": lambda given, name=name: {name: 1.0}}
        with pytest.raises(ValueError, match=rf"Found eval_{name.removeprefix('eval_')}\. Rename"):
            trainer_of(validation=disjoint, given=given).evaluate()


def test_logits_can_be_preprocessed_before_they_are_kept(trainer_of, disjoint):
    def best(logits, labels):
        assert len(logits) == len(labels)
        return logits.argmax(-1)

    def of_all(logits, labels):
        return {task: values.argmax(-1) for task, values in logits.items() if task != "score"}

    seen = []
    for preprocess in ({"pos": best, "topic": best}, of_all):
        given = {"preprocess_logits_for_metrics": preprocess, "compute_metrics": lambda each: seen.append(each) or {}}
        trainer_of(validation=disjoint, given=given).evaluate()
        assert seen[-1].predictions["topic"].shape == (24,)
        assert seen[-1].predictions["pos"].shape == seen[-1].label_ids["pos"].shape
        assert seen[-1].predictions["score"].shape == (24, 1)
    seen = []
    given = {"preprocess_logits_for_metrics": lambda logits, labels: seen.append(labels) or logits}
    trainer = trainer_of(given={**given, **COLUMNS})
    trainer.predict(TEXTS.select([0, 1]))
    assert sorted(seen[-1]["topic"].tolist()) == [-100, 0] and seen[-1]["pos"] is None
    trainer.predict(TEXTS.remove_columns("kind"))
    assert seen[-1] is None
    wrong = {"preprocess_logits_for_metrics": lambda logits, labels: logits["pos"], "compute_metrics": of_all}
    with pytest.raises(ValueError, match=r"should return such a dict\. Found Tensor\."):
        trainer_of(validation=disjoint, given=wrong).evaluate()


def test_named_sets_have_their_own_prefix_and_can_choose_the_best_model(trainer_of, disjoint):
    sets = {"news": disjoint, "tweets": {"texts": disjoint["texts"]}}
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "tweets_mtl_score", "eval_on_start": True}
    trainer = trainer_of(disjoint, sets, **settings, **best)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_tweets_mtl_score" in entry]
    assert [entry["step"] for entry in logged] == [0, 1, 2]
    assert trainer.state.best_metric == max(entry["eval_tweets_mtl_score"] for entry in logged[1:])
    metrics = trainer.evaluate(metric_key_prefix="final")
    assert {"final_news_pos_accuracy", "final_news_loss", "final_tweets_topic_accuracy"} <= metrics.keys()
    assert "final_tweets_pos_accuracy" not in metrics
    alone = trainer.evaluate("tweets")
    assert alone["eval_mtl_score"] == pytest.approx(metrics["final_tweets_mtl_score"])
    with pytest.raises(ValueError, match=r"No evaluation set 'twets'\. The trainer has news, tweets\."):
        trainer.evaluate("twets")
    with pytest.raises(ValueError, match=r"There are several evaluation sets\. Name one of news, tweets\."):
        trainer.get_eval_dataloader()
    assert sum(len(batch["input_ids"]) for batch in trainer.get_eval_dataloader("news")) == 40


def test_a_step_returns_loss_logits_and_labels_and_the_loop_is_refused(trainer_of, disjoint):
    trainer = trainer_of(disjoint, disjoint)
    (batch, *_) = trainer.get_eval_dataloader()
    loss, logits, labels = trainer.prediction_step(trainer.model, dict(batch), prediction_loss_only=False)
    assert loss.item() > 0 and logits.keys() == labels.keys() == TASKS.keys()
    assert trainer.prediction_step(trainer.model, dict(batch), prediction_loss_only=True)[1:] == (None, None)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert trainer.prediction_step(trainer.model, inputs, prediction_loss_only=False)[0] is None
    with pytest.raises(ValueError, match=r"Use `evaluate` for scores, or `predict`"):
        trainer.evaluation_loop(None, "Evaluation")
