"""Pushes during and after training, by a recipe and by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from interpreter import Finished, Interpreter, Running
from local_hub import ADA, LocalHub
from toys import sample_recipe
from transformers import AutoModel

MODEL = {"README.md", "config.json", "model.safetensors", "recipe.yaml", "tokenizer.json", "tokenizer_config.json"}
TO_RESUME = {
    *(MODEL - {"README.md"}),
    "checkpoint_files.json",
    "optimizer.pt",
    "progress.json",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
}
STEPS = [f"Training in progress, step {step}" for step in (1, 2, 3)]
STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")

BY_HAND = """
import sys
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare
recipe = Recipe.load(sys.argv[1])
arguments = training_arguments(recipe)
arguments.hub_token = sys.argv[2]
run = prepare(recipe)
trainer = build_trainer(run, build_model(run), arguments)
trainer.train()
"""
"""With the recipe and a token as an argument, which no recipe may hold."""


class Runs(NamedTuple):
    """Trainings of the sample recipe for three steps, with a checkpoint after each step."""

    folder: Path
    encoder: str
    online: Interpreter

    def recipe(self, name: str, **training: Any) -> str:
        """Return the file of a recipe that trains into the folder `name`."""
        recipe = sample_recipe(self.encoder, self.folder / name, max_steps=3)
        recipe["training"] |= {"save_strategy": "steps", "save_steps": 1, "disable_tqdm": True, **training}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return str(path)

    def train(self, name: str, **training: Any) -> Finished:
        """Run the train command with a push to `ada/<name>`."""
        arguments = {"push_to_hub": True, "hub_model_id": f"ada/{name}", "hub_strategy": "end", **training}
        return self.online.command("train", self.recipe(name, **arguments))


@pytest.fixture(scope="module")
def runs(online: Interpreter, encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("hub_trainer"), encoder_folder("bert"), online)


@pytest.fixture(scope="module")
def by_strategy(hub: LocalHub, runs: Runs) -> dict[str, Finished]:
    """The result of training with each strategy, pushed to `ada/by-<strategy>` with the token only as an argument."""
    running: dict[str, Running] = {}
    best = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "save_total_limit": 1}
    for strategy in STRATEGIES:
        name = f"by-{strategy}"
        pushing = {
            "push_to_hub": True,
            "hub_strategy": strategy,
            "hub_always_push": True,
            "hub_model_id": f"ada/{name}",
        }
        # So slow that the second checkpoint is deleted and the third is written before the first is pushed.
        hub.fail(f"ada/{name}", "commit", delay=3.0, times=1)
        recipe = runs.recipe(name, **pushing, **best)
        running[strategy] = runs.online.start(BY_HAND + "trainer.push_to_hub()", recipe, ADA, HF_TOKEN="")
    return {strategy: program.wait() for strategy, program in running.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_pushes_its_files_in_order_and_no_local_data(hub, by_strategy, private_words, strategy):
    assert by_strategy[strategy].status == 0, by_strategy[strategy].stderr
    folders = {
        "checkpoint": {"last-checkpoint"},
        "all_checkpoints": {"checkpoint-1", "checkpoint-2", "checkpoint-3"},
    }.get(strategy, set())
    resumable = {f"{folder}/{name}" for folder in folders for name in TO_RESUME}
    assert set(hub.files(f"ada/by-{strategy}")) == MODEL | resumable
    commits = hub.commits(f"ada/by-{strategy}")
    assert [message for message in commits if message != "End of training"] == ([] if strategy == "end" else STEPS)
    assert hub.leaked([*private_words, "training_args"]) == set()


def test_arguments_with_the_token_are_not_saved(by_strategy, runs):
    runs_of = [runs.folder / f"by-{strategy}" for strategy in by_strategy]
    names = [path.name for folder in runs_of for path in folder.rglob("*")]
    assert "optimizer.pt" in names
    assert "training_args.bin" not in names
    assert not [
        path for folder in runs_of for path in folder.rglob("*") if path.is_file() and ADA.encode() in path.read_bytes()
    ]


def test_training_resumes_from_a_hub_checkpoint(hub, by_strategy, runs):
    folder = runs.folder / "went-on"
    for path, content in hub.files("ada/by-checkpoint").items():
        if path.startswith("last-checkpoint/"):
            (folder / "checkpoint-3").mkdir(parents=True, exist_ok=True)
            (folder / "checkpoint-3" / Path(path).name).write_bytes(content)
    state = json.loads((folder / "checkpoint-3" / "trainer_state.json").read_text())
    assert re.fullmatch(r"checkpoint-\d", state["best_model_checkpoint"])
    finished = runs.online.command("train", runs.recipe("went-on", max_steps=4), "--resume")
    assert finished.status == 0, finished.stderr
    assert "note: --resume: resuming from checkpoint-3" in finished.stdout
    assert json.loads((folder / "results.json").read_text())["training"]["steps"] == 4


def test_train_command_pushes_once_with_scores_and_prints_the_address(hub, runs, private_words):
    finished = runs.train("at-the-end", hub_private_repo=True, hub_revision="trained")
    assert finished.status == 0, finished.stderr
    assert finished.stderr == ""
    assert "Pushed to ada/at-the-end.\n" in finished.stdout
    assert hub.repositories["ada/at-the-end"].private
    assert hub.commits("ada/at-the-end") == []
    assert hub.commits("ada/at-the-end", "trained") == ["End of training"]
    assert set(hub.files("ada/at-the-end", "trained")) == MODEL | {"results.json"}
    assert "mtl_score" in hub.files("ada/at-the-end", "trained")["README.md"].decode()
    assert hub.leaked(private_words) == set()


def test_failed_checkpoint_push_is_reported_and_training_continues(hub, runs):
    hub.fail("ada/unsteady", "commit", status=500, times=1)
    finished = runs.train("unsteady", hub_strategy="every_save", hub_always_push=True)
    assert finished.status == 0
    (warning,) = finished.stderr.splitlines()
    assert warning.startswith("checkpoint-1 was not pushed: ada/unsteady: the Hub failed (500). ")
    assert warning.endswith(" Training continues.")
    assert hub.commits("ada/unsteady") == [*STEPS[1:], "End of training"]


def test_failed_final_push_is_reported_and_keeps_the_run(hub, runs):
    hub.fail("ada/in-vain", "commit", cut=0)
    finished = runs.train("in-vain")
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("mtl-nlp: error: ada/in-vain: the connection to the Hub failed")
    assert hub.commits("ada/in-vain") == []
    assert {path.name for path in (runs.folder / "in-vain").iterdir()} >= MODEL | {"results.json"}
    hub.heal("ada/in-vain")
    assert runs.online.command("push", str(runs.folder / "in-vain"), "ada/in-vain").status == 0
    assert set(hub.files("ada/in-vain")) == MODEL | {"results.json", "report.html"}


def test_token_without_write_permission_is_reported_before_training(hub, runs):
    recipe = runs.recipe("hopeless", push_to_hub=True, hub_model_id="eve/hopeless")
    finished = runs.online.command("train", recipe)
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert "eve/hopeless: the token has no write access to it" in line
    assert not list((runs.folder / "hopeless").glob("checkpoint-*"))
    assert "train_runtime" not in finished.stdout


def test_manual_push_runs_in_the_background_with_code_and_the_folder_name(hub, runs, tmp_path):
    program = """
future = trainer.push_to_hub("By hand", blocking=False, private=True, revision="new", with_code=True)
print(future.result().oid)
from mtl_nlp.errors import HubError
try:
    trainer.push_to_hub(token="hf_nobodys")
except HubError as error:
    print(error)
"""
    finished = runs.online.run(BY_HAND + program, runs.recipe("by-hand", save_strategy="no"), ADA, HF_TOKEN="")
    assert finished.status == 0, finished.stderr
    oid, error = finished.stdout.splitlines()[-2:]
    assert hub.repositories["ada/by-hand"].private
    assert hub.repositories["ada/by-hand"].branches["new"][-1].id == oid
    assert hub.commits("ada/by-hand", "new") == ["By hand"]
    assert set(hub.files("ada/by-hand", "new")) > MODEL | {"pipeline_multitask.py"}
    assert error.startswith("ada/by-hand: the Hub does not accept the token.")
    for name, content in hub.files("ada/by-hand", "new").items():
        (tmp_path / name).write_bytes(content)
    ours, theirs = (AutoModel.from_pretrained(path).state_dict() for path in (runs.folder / "by-hand", tmp_path))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_card_can_be_made_before_the_model_is_saved_and_takes_no_metadata(trainer_of):
    trainer = trainer_of()
    trainer.create_model_card()
    card = (Path(trainer.args.output_dir) / "README.md").read_text(encoding="utf-8")
    assert "| topic | text-classification" in card
    for refused in (trainer.create_model_card, trainer.push_to_hub):
        with pytest.raises(
            ValueError, match=r"takes no 'language'\. Write such metadata into the header of README\.md"
        ):
            refused(language="en")
