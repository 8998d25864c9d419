from __future__ import annotations

import pytest

from mtl_nlp import Recipe, TextClassification
from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.reduction import rows_of
from mtl_nlp.transfer.affinity_effects import HELPS, UNCLEAR
from mtl_nlp.transfer.affinity_pairs import _effect, check_pairs, plan_pairs


def test_pairs_and_lone_tasks_have_equal_settings_and_passes(two_tasks, tmp_path):
    data = two_tasks(tmp_path)
    data["baselines"] = {"training": {"num_train_epochs": 9}}
    data["mixture"] = {"headroom": True}
    data["tasks"]["topic"].pop("pooling", None)
    run = prepare(Recipe.from_dict(data))
    check_pairs(run)
    plan = plan_pairs(run, 0.5, [1, 2])
    assert [job.name for job in plan.jobs] == [
        *("alone pos, seed 1", "alone topic, seed 1", "pair pos topic, seed 1"),
        *("alone pos, seed 2", "alone topic, seed 2", "pair pos topic, seed 2"),
    ]
    assert len({job.key for job in plan.jobs}) == 6
    pos, topic, pair = plan.jobs[:3]
    assert pair.rows == pytest.approx(pos.rows + topic.rows)
    assert pair.rows == pytest.approx(0.5 * rows_of(["pos", "topic"], plan.used))
    rates = {job.recipe["training"]["head_learning_rate"] for job in plan.jobs}
    assert len(rates) == 1  # a task alone would have the rate of the stock classes
    for job in plan.jobs:
        assert job.recipe["training"]["eval_strategy"] == "no"
        assert "headroom" not in job.recipe.get("mixture", {})
        assert all("test" not in dataset["data_files"] for dataset in job.recipe["datasets"].values())
    assert topic.recipe["tasks"]["topic"]["pooling"] == "mean"


def test_pairs_need_validation_rows_and_at_most_eight_tasks(run, two_tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("mtl_nlp.transfer.affinity_pairs.MOST_TASKS", 2)
    with pytest.raises(CommandError, match=r"^--pairwise: trains all pairs of at most 2 tasks\. The recipe has 3\."):
        check_pairs(run)
    data = two_tasks(tmp_path)
    del data["datasets"]["texts"]["data_files"]["validation"]
    with pytest.raises(RecipeError, match=r"no validation row has a label for 'topic'"):
        check_pairs(prepare(Recipe.from_dict(data)))


def predictions(right: int) -> list[Prediction]:
    return [
        Prediction("t", "d", "validation", row, "x", "x" if row < right else "y", 0.5, text=f"text {row}")
        for row in range(100)
    ]


def test_one_seed_has_an_interval_over_rows_and_several_over_both():
    task = TextClassification(name="t", labels=["x", "y"])
    one = _effect([predictions(90)], [predictions(60)], task)
    assert one.value == pytest.approx(0.3)
    assert one.word == HELPS
    assert 0.2 < one.low < 0.25
    several = _effect([predictions(90), predictions(70)], [predictions(60), predictions(80)], task)
    assert several.value == pytest.approx(0.1)
    assert several.word == UNCLEAR
