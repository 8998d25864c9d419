"""The teachers of a recipe: the models that the section `distill` names, and their scores on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.teachers import teachers_of
from mtl_nlp.transfer.content import content_key


def comparison(folder: Path, sides: dict[str, Any]) -> str:
    """Write a comparison with the runs of some sides, `{side: {seed: [(folder, tasks), …]}}`."""
    runs = {
        side: {seed: [{"folder": each, "tasks": tasks} for each, tasks in found] for seed, found in by_seed.items()}
        for side, by_seed in sides.items()
    }
    content = {
        "split": "test",
        "seeds": [1, 2],
        "reference": next(iter(sides)),
        "sides": {side: {"title": side, "runs": found} for side, found in runs.items()},
        "tasks": {"pos": {"metric": "accuracy", "values": {}}},
    }
    folder.mkdir(exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(content))
    return str(folder)


def taught(recipe: dict[str, Any], teachers: Any, **training: Any) -> Recipe:
    changed = {**recipe, "distill": {"teachers": teachers}, "training": {**recipe["training"], **training}}
    return Recipe.from_dict(changed)


@pytest.fixture
def own_cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "mtl_nlp_teachers"


def test_plan_names_teachers_and_cost_and_a_training_computes_their_scores_once(quick_recipe, saved, own_cache):
    quick_recipe["datasets"]["sample"]["max_rows"] = {"train": 40}
    run = prepare(taught(quick_recipe, {"pos": str(saved), "topic": str(saved)}))
    arguments = training_arguments(run.recipe)
    plan = describe_plan(run, arguments)
    columns = [run.train["sample"].windows[f"label:{task}"] for task in ("pos", "topic")]
    rows = sum(label is not None for column in columns for label in column)
    assert f"teacher of pos: {saved}\nteacher of topic: {saved}\n" in plan
    assert f"computed once, before training, in {rows} encoder passes over a row (0.0 MB on disk)" in plan
    assert not own_cache.exists(), "a plan computes nothing"
    trainer = run.build_trainer()
    written = {path: path.stat().st_mtime_ns for path in own_cache.iterdir()}
    assert len(written) == 2
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch["teachers"]) == {"pos", "topic"}
    trainer.train()
    assert trainer.state.global_step == 4
    again = prepare(run.recipe)
    assert "computed once, already, and are in the cache" in describe_plan(again, arguments)
    again.build_trainer()
    assert {path: path.stat().st_mtime_ns for path in own_cache.iterdir()} == written
    # The scores are those of the teacher, and an evaluation has no teachers.
    windows = trainer.train_dataset.datasets["sample"].windows
    sizes = [len(words) * run.tasks["pos"].num_labels for words in windows["words"]]
    assert [len(scores) for scores in windows["teacher:pos"]] == sizes
    assert np.isfinite(np.concatenate(windows["teacher:pos"])).all()
    assert trainer.evaluate({"sample": run.train["sample"]})["eval_loss"] > 0


def test_teachers_of_a_comparison_are_the_single_task_runs_with_the_seed(quick_recipe, saved, tmp_path):
    folder = tmp_path / "compared"
    tasks = list(quick_recipe["tasks"])
    runs = {}
    for seed in ("1", "2"):
        for task in tasks:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            (folder / "runs" / f"{task}-{seed}").symlink_to(saved)
        runs[seed] = [(f"runs/{task}-{seed}", [task]) for task in tasks]
    comparison(folder, {"single": runs, "joint": {"1": [("runs/joint", tasks)]}})
    for seed, expected in ((2, "2"), (42, "1")):
        found = teachers_of(taught(quick_recipe, str(folder), seed=seed))
        assert {task: each.folder for task, each in found.items()} == {
            task: str(folder / "runs" / f"{task}-{expected}") for task in tasks
        }
    assert teachers_of(Recipe.from_dict(quick_recipe)) == {}


def test_content_key_depends_on_the_weights_of_teachers_and_not_on_their_place(quick_recipe, saved, tmp_path):
    (tmp_path / "moved").symlink_to(saved)
    digests = {"sample": {"train": "a"}}
    keys = [
        content_key(taught(quick_recipe, {"pos": str(folder)}), digests, "e") for folder in (saved, tmp_path / "moved")
    ]
    assert keys[0] == keys[1] != content_key(Recipe.from_dict(quick_recipe), digests, "e")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "weights_sha256": "0"}))
    assert content_key(taught(quick_recipe, {"pos": str(saved)}), digests, "e") != keys[0]


def test_unfit_teachers_are_refused_in_one_line(quick_recipe, saved, encoder_folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()

    def with_tasks(change: Any) -> str:
        config = json.loads((saved / "config.json").read_text())
        change(config["tasks"])
        (other / "config.json").write_text(json.dumps(config))
        return str(other)

    def refused(teachers: Any) -> str:
        with pytest.raises(RecipeError) as found:
            prepare(taught(quick_recipe, teachers))
        assert "\n" not in str(found.value)
        return str(found.value)

    assert refused(str(tmp_path / "none")).startswith(f"distill.teachers: {tmp_path}/none is not the folder of a comp")
    folder = comparison(tmp_path / "c", {"joint": {"1": [("runs/joint", ["pos", "ner", "topic"])]}})
    assert f"the comparison in {folder} has no single-task run of the task 'pos'. Name a teacher" in refused(folder)
    (tmp_path / "c" / "comparison.json").write_text("{")
    assert "distill.teachers: " in refused(folder)
    assert "the teacher of 'pos': " in refused({"pos": str(tmp_path / "none")})
    assert "without multitask heads" in refused({"pos": encoder_folder("bert")})
    without = with_tasks(lambda tasks: tasks.pop(0))
    assert "has no token-classification task of this name. It has ner (token" in refused({"pos": without})
    fewer = with_tasks(lambda tasks: tasks[0].update(labels=tasks[0]["labels"][1:]))
    assert "lacks the labels " in refused({"pos": fewer})
    more = with_tasks(lambda tasks: tasks[0]["labels"].append("NEW"))
    assert "also has the labels NEW. Teacher and student should have the same labels" in refused({"pos": more})
