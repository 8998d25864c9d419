"""Probabilities of datasets that follow the validation scores."""

from __future__ import annotations

import numpy as np
import pytest
from toy_splits import TASKS
from trainers import assert_same_weights, build_model
from watched_training import Fetching

from mtl_nlp import MultitaskTrainingArguments, TaskMixture
from mtl_nlp.training.headroom import check_headroom, dataset_gaps
from mtl_nlp.training.schedule import batch_sampler

METRICS = {task.name: f"eval_{task.name}_{task.kind.primary_score}" for task in TASKS.values()}


def history(**scores: list[float | None]) -> list[dict[str, object]]:
    """Return a log with an evaluation every 10 steps."""
    count = max(map(len, scores.values()), default=0)
    return [
        {"step": 10 * (number + 1), **{METRICS[task]: values[number] for task, values in scores.items()}}
        for number in range(count)
    ]


LOG = history(pos=[0.5, 0.4, 0.3], ner=[0.5, 0.5, 0.5], topic=[0.8, 0.6, 0.9], score=[-0.1, -0.2, 0.5])


def test_gap_is_the_mean_distance_of_a_dataset_from_its_best_scores(disjoint):
    mixture = TaskMixture(disjoint, headroom=True)
    assert dataset_gaps([], mixture, TASKS, 99) is None
    assert dataset_gaps(LOG, mixture, TASKS, 9) is None
    assert dataset_gaps(LOG, mixture, TASKS, 10).tolist() == [0.0, 0.0]
    # topic: 1 - 0.6 / 0.8; a best score below 0 has no gap.
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 25), [(0.2 + 0.0) / 2, (0.25 + 0.0) / 2])
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 30), [(0.4 + 0.0) / 2, 0.0])


def test_gap_from_reference_scores_is_between_0_and_1(disjoint):
    mixture = TaskMixture(disjoint, headroom={"pos": 1.0, "ner": 0.25, "topic": 0.9, "score": 1.0})
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 30), [(0.7 + 0.0) / 2, (0.0 + 0.5) / 2])
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 10), [(0.5 + 0.0) / 2, (0.1 / 0.9 + 1.0) / 2])


def test_frozen_task_has_no_gap(disjoint):
    mixture = TaskMixture(disjoint, headroom=True)
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 30, patience=3), [0.2, 0.0])
    assert dataset_gaps(LOG, mixture, TASKS, 30, patience=2).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 20, patience=2), [0.1, 0.125])


def test_task_without_a_score_does_not_count_and_a_dataset_without_one_has_no_gap(disjoint):
    mixture = TaskMixture(disjoint, headroom=True)
    log = history(pos=[None, 0.4, None], topic=[0.5, 0.25, None])
    assert dataset_gaps(log, mixture, TASKS, 10) is None
    np.testing.assert_allclose(dataset_gaps(log, mixture, TASKS, 30), [0.0, 0.5])


def test_task_outside_of_the_mixture_needs_no_reference(disjoint):
    mixture = TaskMixture({"a": disjoint["words"], "b": disjoint["words"]}, headroom={"pos": 1.0, "ner": 1.0})
    np.testing.assert_allclose(dataset_gaps(LOG, mixture, TASKS, 30), [0.6, 0.6])


SETTINGS = {
    "per_device_train_batch_size": 4, "num_train_epochs": 4, "eval_strategy": "epoch", "logging_steps": 3,
    "learning_rate": 0.01, "save_steps": 1, "save_strategy": "steps",
}  # fmt: skip


def logged(trainer) -> list[dict[str, float]]:
    return [
        {key: value for key, value in entry.items() if key != "step"}
        for entry in trainer.state.log_history
        if "probability_words" in entry
    ]


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2}])
@pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
def test_resumed_run_draws_the_rows_of_an_uninterrupted_run(trainer_of, disjoint, tmp_path, batching, settings):
    references = {"pos": 0.9, "ner": 0.9, "topic": 0.5, "score": 0.1}
    found = []
    for checkpoint in (None, 13, 17, 20):  # the second epoch, the second epoch or its end, the border or the third
        more = {} if checkpoint is None else {"save_strategy": "no"}
        trainer = trainer_of(disjoint, disjoint, model=build_model(), **{**SETTINGS, **settings, **more})
        trainer.train_dataset = Fetching(disjoint, headroom=references, batching=batching, length_window=2)
        resume = None if checkpoint is None else str(tmp_path / "run" / f"checkpoint-{checkpoint}")
        trainer.train(resume_from_checkpoint=resume)
        found.append(trainer)
    whole = found[0]
    assert [entry["epoch"] for entry in logged(whole)] == [0, 1, 2, 3]
    bases = whole.train_dataset.probabilities
    assert logged(whole)[0]["probability_words"] == pytest.approx(bases[0])
    for number, entry in enumerate(logged(whole)[1:], start=1):
        steps = number * whole.state.global_step // 4
        gaps = dataset_gaps(whole.state.log_history, whole.train_dataset, TASKS, steps)
        expected = 0.5 * bases + 0.5 * gaps / gaps.sum()
        assert [entry["probability_words"], entry["probability_texts"]] == pytest.approx(expected.tolist())
        assert abs(expected[0] - bases[0]) > 0.01
    drawn = whole.describe_training()["mixture"]
    rows = sum(each["drawn"] for each in drawn.values())
    assert drawn["words"]["probability"] == pytest.approx(drawn["words"]["drawn"] / rows)
    if batching == "mixed":
        planned = np.mean([entry["probability_words"] for entry in logged(whole)])
        assert abs(drawn["words"]["drawn"] - planned * rows) < 1
    for resumed in found[1:]:
        fetched = resumed.train_dataset.fetched
        assert whole.train_dataset.fetched[-len(fetched) :] == fetched
        assert_same_weights(resumed.model, whole.model)
        assert logged(resumed) == logged(whole)


def sampler_for(mixture, tmp_path, **settings):
    defaults = {"output_dir": str(tmp_path), "per_device_train_batch_size": 4, "num_train_epochs": 2}
    args = MultitaskTrainingArguments(**{**defaults, **settings})
    return batch_sampler(mixture, args), args


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`headroom` needs an evaluation in each epoch. Found `eval_strategy: no`"),
        ({"eval_strategy": "steps", "eval_steps": 11}, "of 10 steps. Found an evaluation every 11 steps"),
        ({"eval_strategy": "steps", "eval_steps": 0.55}, "of 10 steps. Found an evaluation every 11 steps"),
        ({"eval_strategy": "epoch"}, None),
        ({"eval_strategy": "steps", "eval_steps": 10}, None),
        ({"eval_strategy": "steps", "eval_steps": 0.5}, None),
    ],
)
def test_every_epoch_needs_an_evaluation(disjoint, tmp_path, settings, message):
    sampler, args = sampler_for(TaskMixture(disjoint, headroom=True), tmp_path, **settings)
    if message is None:
        check_headroom(sampler, disjoint, args)
        return
    with pytest.raises(ValueError, match=message):
        check_headroom(sampler, disjoint, args)
    sampler, args = sampler_for(TaskMixture(disjoint), tmp_path, **settings)
    check_headroom(sampler, {}, args)


def test_every_dataset_needs_scores_and_every_scored_task_a_reference(trainer_of, disjoint, tmp_path):
    sampler, args = sampler_for(TaskMixture(disjoint, headroom=True), tmp_path, eval_strategy="epoch")
    with pytest.raises(ValueError, match="No task of 'texts' has labels in a validation split"):
        check_headroom(sampler, {"words": disjoint["words"]}, args)
    known = dict.fromkeys(["pos", "ner", "topic"], 0.5)
    sampler, args = sampler_for(TaskMixture(disjoint, headroom=known), tmp_path, eval_strategy="epoch")
    with pytest.raises(ValueError, match=r"should have a reference score for each task\. 'score' is missing"):
        check_headroom(sampler, disjoint, args)
    trainer = trainer_of(disjoint, disjoint, max_steps=1)
    trainer.train_dataset = TaskMixture(disjoint, headroom=True)
    with pytest.raises(ValueError, match="Found `eval_strategy: no`"):
        trainer.train()
