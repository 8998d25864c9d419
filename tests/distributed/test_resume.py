"""Runs that are killed, fill the disk or change, and resume with `--resume`; each run has separate processes."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from workshop import (
    CASES,
    LAST_STEP,
    STREAMED,
    after,
    assert_same_run,
    has_saved,
    random_moments,
    state_of,
    while_writing,
)

pytestmark = pytest.mark.slow

# Killed runs


@pytest.mark.parametrize("processes", [1, 2])
def test_run_killed_at_random_moments_ends_like_an_uninterrupted_run(workshop, output, processes):
    workshop.train_with_kills(random_moments(1, 4), output, processes=processes)
    assert_same_run(output, workshop.reference("mixed", processes))


@pytest.mark.parametrize(("processes", "last_file"), [(1, "rng_state.pth"), (2, "rng_state_1.pth")])
def test_run_killed_during_a_checkpoint_resumes_from_the_last_complete_one(workshop, output, processes, last_file):
    workshop.train_until(after(4), output, processes=processes)
    for file in ("recipe.yaml", "model.safetensors", "optimizer.pt", last_file):
        workshop.train_until(while_writing(output, file), output, processes=processes, resume=True)
    ended = workshop.train(output, processes=processes, resume=True)
    assert any(" is incomplete (" in note for note in ended.notes)
    assert_same_run(output, workshop.reference("mixed", processes))


def test_run_killed_in_its_first_checkpoint_restarts(workshop, output):
    workshop.train_with_kills([while_writing(output, "model.safetensors")], output)
    assert_same_run(output, workshop.reference("mixed"))


@pytest.mark.parametrize("processes", [1, 2])
def test_run_killed_in_its_second_epoch_resumes_at_the_border(workshop, output, processes):
    case = "saved at the epoch's border"
    workshop.train_with_kills([after(11)], output, *CASES[case], processes=processes)
    assert_same_run(output, workshop.reference(case, processes))


@pytest.mark.parametrize(
    ("case", "processes"),
    [
        *((case, 1) for case in CASES if case not in {"mixed", "saved at the epoch's border", "the last model"}),
        *(("streamed", 2), ("adapters", 2), ("headroom, streamed", 2), ("tasks that stop", 2)),
    ],
)
def test_resumed_run_ends_equally_for_all_kinds_of_batches(workshop, output, case, processes):
    moments = [after(5), *random_moments(len(case), 1, first=8)]
    workshop.train_with_kills(moments, output, *CASES[case], processes=processes)
    assert_same_run(output, workshop.reference(case, processes))


@pytest.mark.parametrize("case", ["adapters", "frozen, with adapters"])
def test_optimizer_of_the_checkpoint_has_all_trained_parameters(workshop, case):
    checkpoint = workshop.reference(case) / f"checkpoint-{LAST_STEP}"
    weights, optimizer = load_file(checkpoint / "model.safetensors"), torch.load(checkpoint / "optimizer.pt")
    pattern = "" if case == "adapters" else r"heads\.[12]\.|.*\.lora_[AB]\.task_(ner|topic)\."
    trained = {name for name in weights if re.match(pattern, name)}
    assert len([name for name in trained if "lora_" in name]) == (24 if case == "adapters" else 48)
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == len(trained)
    shapes = sorted(list(state["exp_avg"].shape) for state in optimizer["state"].values())
    assert shapes == sorted(list(weights[name].shape) for name in trained)


def test_workers_do_not_change_a_stream(workshop):
    one, other = (workshop.reference(case) for case in ("streamed", "streamed by a worker"))
    assert_same_run(one, other)


@pytest.mark.parametrize("processes", [1, 2])
def test_runs_started_by_the_real_commands_resume_to_the_same_weights(workshop, output, processes):
    workshop.train_with_kills(random_moments(3, 2, last=12), output, processes=processes, command=True)
    assert_same_run(output, workshop.reference("mixed", processes))


# Finished runs


@pytest.mark.parametrize("processes", [1, 2])
def test_run_killed_after_its_last_checkpoint_only_saves_its_model(workshop, output, processes):
    case = "the last model"
    workshop.train_until(has_saved(output, LAST_STEP), output, *CASES[case], processes=processes)
    workshop.train(output, *CASES[case], processes=processes, resume=True)
    assert_same_run(output, workshop.reference(case, processes))


def test_finished_run_is_not_trained_further(workshop, output):
    shutil.copytree(workshop.reference("mixed"), output)
    workshop.train(output, resume=True)
    assert_same_run(output, workshop.reference("mixed"))


def test_patience_continues_counting_after_resume(workshop, output, tmp_path):
    # Nothing is learned, so the first evaluation is the best, and no later evaluation improves.
    overrides = ("training.learning_rate=0", "training.early_stopping_patience=2")
    overrides += ("training.eval_steps=2", "training.save_steps=2")
    workshop.train(tmp_path / "whole", *overrides)
    assert state_of(tmp_path / "whole")["global_step"] == 6
    workshop.train_with_kills([after(5)], output, *overrides)
    assert_same_run(output, tmp_path / "whole")
    workshop.train(output, *overrides, resume=True)
    assert_same_run(output, tmp_path / "whole")
    workshop.train(output, *overrides[:1], "training.early_stopping_patience=3", *overrides[2:], resume=True)
    assert state_of(output)["global_step"] == 8


# A full disk


@pytest.mark.parametrize(
    ("file", "processes"),
    [("model.safetensors", 1), ("optimizer.pt", 1), ("optimizer.pt", 2)],
)
def test_unwritable_checkpoint_is_reported_and_the_previous_one_is_kept(workshop, output, file, processes):
    workshop.train_until(has_saved(output, 3), output, processes=processes)
    before = {path: path.read_bytes() for path in (output / "checkpoint-3").iterdir()}
    size = len(before[output / "checkpoint-3" / file]) // 2
    ended = workshop.start(output, processes=processes, resume=True, file_size=size).end()
    error = ended.line(1, "mtl-nlp: error: ")
    assert f"{output}/checkpoint-6 cannot be written (" in error
    assert (
        f"Free disk space. The last complete checkpoint is {output}/checkpoint-3. To continue, add --resume." in error
    )
    assert {path.name for path in output.glob("checkpoint-*")} == {"checkpoint-3"}
    assert {path: path.read_bytes() for path in (output / "checkpoint-3").iterdir()} == before
    workshop.train(output, processes=processes, resume=True)
    assert_same_run(output, workshop.reference("mixed", processes))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_in_the_final_save_keeps_the_old_model(workshop, output, processes):
    nothing_saved = (*CASES["the last model"], "training.save_strategy=no")
    workshop.train(output, *nothing_saved, processes=processes)
    shutil.copytree(output, output.parent / "old")
    size = (output / "model.safetensors").stat().st_size // 2
    more = (*nothing_saved, "training.num_train_epochs=1")
    ended = workshop.start(output, *more, overwrite=True, processes=processes, file_size=size).end()
    assert 1 in ended.codes
    assert f"mtl-nlp: error: output_dir: {output} cannot be written to: " in ended.stderr
    assert "Traceback" not in ended.stderr
    for path in (output.parent / "old").iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()
    workshop.train(output, *more, overwrite=True, processes=processes)
    assert (output / "model.safetensors").read_bytes() != (output.parent / "old" / "model.safetensors").read_bytes()
    assert {path.name for path in output.iterdir()} == {path.name for path in (output.parent / "old").iterdir()}


def test_a_run_that_is_killed_keeps_the_old_model_and_its_recipe(workshop, output):
    workshop.train(output)
    old = {path: path.read_bytes() for path in output.iterdir() if path.is_file()}
    is_new = has_saved(output, 3)
    workshop.train_until(
        lambda started: not (output / "checkpoint-6").exists() and is_new(started),
        *(output, "training.learning_rate=0.1"),
        overwrite=True,
    )
    assert {path: path.read_bytes() for path in output.iterdir() if path.is_file()} == old
    assert {path.name for path in output.glob("checkpoint-*")} == {"checkpoint-3"}
    ended = workshop.train(output, "training.learning_rate=0.1", resume=True)
    assert ended.notes[-1] == "resuming from checkpoint-3"
    assert "learning_rate: 0.1" in (output / "recipe.yaml").read_text()


# Changed settings


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1)])
def test_changes_are_reported_and_the_run_continues(workshop, output, before, now):
    workshop.train_until(has_saved(output, 9), output, processes=before)
    changes = ("training.learning_rate=0.5", "training.eval_steps=2", "training.save_steps=4", "mixture.temperature=3")
    ended = workshop.train(output, *changes, "training.num_train_epochs=2", processes=now, resume=True)
    kept, order, in_effect, from_where = ended.notes
    assert "training.learning_rate (was 0.01, is 0.5): kept from the checkpoint" in kept
    for change in ("mixture.temperature (was 2.0, is 3.0)", f"the number of processes (was {before}, is {now})"):
        assert change in order
    assert "rows come in a different order" in order
    for change in ("eval_steps (was 3, is 2)", "save_steps (was 3, is 4)", "num_train_epochs (was 2.5, is 2)"):
        assert f"training.{change}" in in_effect
    assert in_effect.endswith(": in effect from here on")
    assert from_where == "resuming from checkpoint-9"
    state = state_of(output)
    assert state["global_step"] == 16
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == [3, 6, 9, 10, 12, 14, 16]
    assert {path.name for path in output.glob("checkpoint-1*")} == {"checkpoint-12", "checkpoint-16"}
    rates = [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]
    assert max(rates) == 0.01


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ("training.per_device_train_batch_size=3", 25),
        ("training.gradient_accumulation_steps=1", 38),
        ("mixture.length_window=4", 20),
        ("datasets.texts.buffer_size=5", 20),
    ],
)
def test_stream_resumes_with_a_different_kind_of_batches(workshop, output, change, steps):
    overrides = (*STREAMED, "mixture.length_window=3")
    workshop.train_until(has_saved(output, 12), output, *overrides)
    ended = workshop.train(output, *overrides, change, resume=True)
    assert change.partition("=")[0] in ended.notes[0]
    assert state_of(output)["global_step"] == steps


@pytest.mark.parametrize("change", ["training.optim=adafactor", "training.head_learning_rate=0.1"])
def test_different_optimizer_is_refused(workshop, output, change):
    shutil.copytree(workshop.reference("mixed"), output)
    error = workshop.start(output, change, resume=True).end().error
    key, _, value = change.partition("=")
    assert (
        f"checkpoint-{LAST_STEP} belongs to a different optimizer: {key} (was not given, is {value}). Set it back"
        in error
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_different_labels_in_the_data_are_refused(workshop, output, tmp_path, processes):
    workshop.train_until(has_saved(output, 3), output, processes=processes)
    row = {"text": "Ada lives in Paris .", "topic": "middling"}
    (tmp_path / "more.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    files = [str(workshop.folder / "train-*.jsonl"), str(tmp_path / "more.jsonl")]
    change = f"datasets.texts.data_files.train={json.dumps(files)}"
    error = workshop.start(output, change, processes=processes, resume=True).end().error
    assert (
        "belongs to a different model: `labels` of task 'topic' was ['long', 'short'] and is now ['long', 'middling', "
        in error
    )
