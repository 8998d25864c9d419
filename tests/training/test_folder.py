"""The folder of a run: checks, locks, and the replacement of a model."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toys import build_model, build_tokenizer
from trainers import assert_same_weights
from transformers import PreTrainedTokenizerBase

from mtl_nlp import MultitaskTrainer, MultitaskTrainingArguments, TextClassification
from mtl_nlp.errors import ModelError, RecipeError
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from mtl_nlp.training.folder import check_output_folder, locked, replace_model

MULTITASK = json.dumps({"model_type": "multitask-encoder"})


def refused(folder: Path, encoder: str = "bert-base-uncased", *, resume: bool = False, overwrite: bool = False) -> str:
    with pytest.raises(RecipeError) as raised:
        check_output_folder(folder, encoder, resume=resume, overwrite=overwrite)
    return str(raised.value)


def test_new_empty_and_marked_folders_are_accepted(tmp_path):
    check_output_folder(tmp_path / "new", "bert", resume=False, overwrite=False)
    check_output_folder(tmp_path, "bert", resume=False, overwrite=False)
    with locked(tmp_path):
        (tmp_path / "runs").mkdir()  # the logs of a run that ended before its first checkpoint
    check_output_folder(tmp_path, "bert", resume=False, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_refused(tmp_path, overwrite):
    (tmp_path / "recipe.yaml").write_text("encoder: bert")
    message = refused(tmp_path, overwrite=overwrite)
    assert message == (
        f"output_dir: {tmp_path} holds files that do not belong to a run, such as recipe.yaml. Choose a new or empty "
        f"folder."
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "bert"}'])
def test_a_folder_with_a_different_model_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert "such as config.json" in refused(tmp_path, overwrite=True)


def test_a_run_is_resumed_or_overwritten_only_on_request(tmp_path):
    (tmp_path / "config.json").write_text(MULTITASK)
    for name in ("checkpoint-3", "checkpoint-6"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").touch()  # the other one is incomplete
    assert refused(tmp_path) == (
        f"output_dir: {tmp_path} holds the run of an earlier training (a trained model, checkpoint-3). Continue that "
        f"run with --resume, replace it with --overwrite, or choose a different output_dir."
    )
    check_output_folder(tmp_path, "bert", resume=True, overwrite=False)
    check_output_folder(tmp_path, "bert", resume=False, overwrite=True)


def test_a_model_whose_replacement_was_interrupted_is_not_lost(tmp_path):
    (tmp_path / ".mtl_nlp.lock").touch()
    (tmp_path / ".saved").mkdir()
    (tmp_path / ".saved" / "config.json").write_text(MULTITASK)
    assert "(a trained model)" in refused(tmp_path)
    check_output_folder(tmp_path, "bert", resume=False, overwrite=True)


@pytest.mark.parametrize("choice", [{}, {"resume": True}, {"overwrite": True}])
def test_the_folder_of_the_encoder_is_refused(tmp_path, choice):
    (tmp_path / "config.json").write_text(MULTITASK)
    (tmp_path / "link").symlink_to(tmp_path)
    for encoder in (tmp_path, tmp_path / "link"):
        assert "holds the encoder" in refused(tmp_path, str(encoder), **choice)


def test_the_checkpoint_of_the_encoder_is_not_overwritten(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    assert "holds the encoder" in refused(tmp_path, str(tmp_path / "checkpoint-3"), overwrite=True)


def test_a_second_run_in_the_folder_is_refused_until_the_first_one_ends(tmp_path):
    with locked(tmp_path), locked(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                with locked(tmp_path):
                    os._exit(1)
            except RecipeError as error:
                os._exit(0 if f"a different run is training in {tmp_path}" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with locked(tmp_path):
        pass


def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path):
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "link"):
        with pytest.raises(ValueError, match="the reason"), locked(folder):
            raise ValueError("the reason")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_is_removed_hides_no_error(tmp_path):
    with pytest.raises(ValueError, match="the reason"), locked(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        raise ValueError("the reason")


def test_a_killed_run_leaves_no_lock(tmp_path):
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            (tmp_path / "locked").touch()
            time.sleep(60)
    while not (tmp_path / "locked").exists():
        time.sleep(0.01)
    with pytest.raises(RecipeError), locked(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RecipeError, match=f"output_dir: {folder} cannot be written to"), locked(folder):
            pass


def model(folder: Path, weights: str, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "multitask-encoder", "weights_sha256": weights}))
    for name in names:
        (folder / name).write_text(weights)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != "config.json"}


def test_a_new_model_replaces_the_files_that_describe_the_old_model(tmp_path):
    foreign = ("notes.txt", "speech.safetensors")
    of_run = ("predictions.jsonl", "training_log.jsonl", "inspection.json")
    old = ("model-00001-of-00002.safetensors", "tokenizer.json", "results.json", "report.html", *of_run, *foreign)
    folder = model(tmp_path / "run", "old", *old)
    (folder / "checkpoint-3").mkdir()
    staged = model(folder / ".saving", "new", "model.safetensors", "vocab.model", "recipe.yaml")
    replace_model(staged, folder, of_recipe=True)
    (folder / "checkpoint-3").rmdir()
    new = dict.fromkeys(("model.safetensors", "vocab.model", "recipe.yaml"), "new")
    assert content(folder) == {**new, **dict.fromkeys(foreign, "old")}
    assert json.loads((folder / "config.json").read_text())["weights_sha256"] == "new"


def test_results_and_cards_stay_if_the_weights_stay_or_no_command_wrote_them(tmp_path):
    describe = ("results.json", "README.md")
    folder = model(tmp_path / "run", "same", "model.safetensors", *describe)
    replace_model(model(folder / ".saving", "same", "model.safetensors"), folder, of_recipe=True)
    assert content(folder) == dict.fromkeys(("model.safetensors", *describe), "same")
    replace_model(model(folder / ".saving", "new", "model.safetensors"), folder, of_recipe=False)
    assert content(folder) == {"model.safetensors": "new", **dict.fromkeys(describe, "same")}
    replace_model(model(folder / ".saving", "newer", "model.safetensors"), folder, of_recipe=True)
    assert content(folder) == {"model.safetensors": "newer", "README.md": "same"}  # a person wrote this card


def trainer(folder: Path, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase) -> MultitaskTrainer:
    torch.manual_seed(0)
    model = build_model([TextClassification(name="topic", labels=labels)], vocab_size=len(tokenizer))
    arguments = MultitaskTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    built = MultitaskTrainer(model=model, args=arguments, processing_class=tokenizer)
    built.recipe = "encoder: bert\n"
    return built


def save_and_die(save: Callable[[], None], moment: int) -> bool:
    """Save in a child process that is killed at its n-th operation on files, and return whether it was killed."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"} and next(count) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        save()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_save_that_is_killed_at_any_moment_leaves_the_old_model_the_new_one_or_none(tmp_path):
    run, tokenizer = tmp_path / "run", build_tokenizer("wordpiece")
    old, new = (trainer(run, labels, tokenizer) for labels in (("news", "sport"), ("sport", "news", "arts")))
    old.save_model()
    (run / "results.json").write_text("{}")
    shutil.copytree(run, tmp_path / "old")
    found = []
    for moment in itertools.count():
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "old", run)
        was_killed = save_and_die(new.save_model, moment)
        try:
            model = load_model(str(run))
            load_model_tokenizer(str(run), model.config)
        except ModelError as error:
            assert re.fullmatch(rf"{run}: the replacement of the model was interrupted\. Finish it: mv .*", str(error))
            subprocess.run(str(error).partition("Finish it: ")[2], shell=True, check=True)
            model = load_model(str(run))
            found.append("none")
        else:
            found.append("new" if len(model.tasks["topic"].labels) == 3 else "old")
        expected = new.model if len(model.tasks["topic"].labels) == 3 else old.model
        assert_same_weights(model, expected)
        assert found[-1] == "old" or not (run / "results.json").exists()
        if not was_killed:
            break
    assert found == sorted(found, key=["old", "none", "new"].index)
    assert set(found) == {"old", "none", "new"}
    assert {path.name for path in run.iterdir()} == {
        *("config.json", "model.safetensors", "recipe.yaml", "tokenizer.json", "tokenizer_config.json"),
    }
