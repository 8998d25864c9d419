from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.errors import CommandError, DataError, RunError
from mtl_nlp.transfer.jobs import Job, JobRunner, check_jobs, folder_of, is_complete

KEY = "0123456789abcdef" * 4


def job(recipe: dict[str, Any] | None = None, side: str = "joint", key: str = KEY) -> Job:
    return Job(side, 1, ("pos",), recipe or {}, key, 100.0)


def finish(folder: Path, split: str = "test") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").touch()
    scores = {"split": split, "tasks": {"pos": {"accuracy": 0.5}}, "mtl_score": 0.5}
    (folder / "results.json").write_text(json.dumps(scores))


def test_a_run_is_found_by_its_key(tmp_path):
    folder = folder_of(tmp_path, job())
    assert folder == tmp_path / "runs" / "joint-pos-seed-1-0123456789abcdef"
    folder.mkdir(parents=True)
    assert folder_of(tmp_path, job(side="other")) == folder
    assert folder_of(tmp_path, job(key="f" * 64)).name == "joint-pos-seed-1-ffffffffffffffff"


@pytest.mark.parametrize("name", ["../../x", "a b/c", "<script>", "ä", ""])
def test_a_name_of_a_side_is_a_name_of_a_folder(tmp_path, name):
    assert folder_of(tmp_path, job(side=name)).parent == tmp_path / "runs"


def test_a_run_is_complete_with_the_scores_and_predictions_of_the_split(tmp_path):
    folder = folder_of(tmp_path, job())
    assert not is_complete(tmp_path, job(), "test")
    finish(folder)
    assert is_complete(tmp_path, job(), "test")
    assert not is_complete(tmp_path, job(), "validation")
    (folder / "predictions.jsonl").unlink()
    assert not is_complete(tmp_path, job(), "test")
    finish(folder)
    (folder / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json is damaged"):
        is_complete(tmp_path, job(), "test")


def test_a_comparison_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CommandError, match="Call it without `accelerate launch`"):
        check_jobs(1)


def test_there_are_at_most_as_many_jobs_as_devices():
    check_jobs(1)
    devices = torch.accelerator.device_count()
    limit = devices or os.cpu_count() or 1
    with pytest.raises(CommandError, match=rf"^--jobs: should be at most {limit}, one per .* Found 4096\."):
        check_jobs(4096)


def test_runs_that_are_complete_are_not_trained(tmp_path):
    finish(folder_of(tmp_path, job()))
    lines: list[str] = []
    JobRunner(tmp_path, 1, "test", lines.append).run([job(), job(side="other")])
    assert lines == []


@pytest.mark.parametrize(("imports", "flags"), [([], []), (["my_module"], ["--allow-code"])])
def test_a_run_may_run_code_that_the_comparison_may_run(tmp_path, imports, flags):
    class Watched(JobRunner):
        def _call(self, arguments: Sequence[str], log: Path) -> int:
            called.append(list(arguments))
            finish(folder_of(tmp_path, own), split="validation" if arguments[0] == "train" else "test")
            return 0

    called: list[list[str]] = []
    own = job({"imports": imports} if imports else {})
    Watched(tmp_path, 1, "test", lambda line: None).run([own])
    assert [(call[0], [each for each in call if each == "--allow-code"]) for call in called] == [
        ("train", flags),
        ("evaluate", flags),
    ]


def test_a_run_that_the_system_ends_is_told(tmp_path):
    class Killed(JobRunner):
        def _call(self, arguments: Sequence[str], log: Path) -> int:
            log.write_text("{'loss': 0.25}\n")
            return -9

    with pytest.raises(RunError, match=r"^joint pos, seed 1: signal 9 has ended the process\. The log is"):
        Killed(tmp_path, 1, "test", lambda line: None).run([job()])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_train_at_once_and_are_scored_on_the_split(tmp_path, quick_recipe):
    del quick_recipe["output_dir"]
    jobs = [
        job({**quick_recipe, "training": {**quick_recipe["training"], "seed": seed}}, key=f"{seed}" * 64)
        for seed in (1, 2)
    ]
    lines: list[str] = []
    JobRunner(tmp_path, 2, "validation", lines.append).run(jobs)
    assert len([line for line in lines if ": training, log in " in line]) == 2
    assert len([line for line in lines if "pos accuracy 0." in line]) == 2
    for each in jobs:
        assert is_complete(tmp_path, each, "validation")
        predictions = (folder_of(tmp_path, each) / "predictions.jsonl").read_text().splitlines()
        assert {json.loads(line)["split"] for line in predictions} == {"validation"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_cannot_be_trained_is_named_with_its_log(tmp_path, quick_recipe):
    del quick_recipe["output_dir"]
    quick_recipe["datasets"]["sample"]["labels"]["pos"] = "nowhere"
    with pytest.raises(
        CommandError, match=r"^joint pos, seed 1: .* no column or comment .nowhere.*The log is .*log\.$"
    ):
        JobRunner(tmp_path, 1, "test", lambda line: None).run([job(quick_recipe)])
