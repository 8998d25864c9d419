"""No value from the environment and no path of this machine leaves a run: the run holds both in all possible places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from hub_faults import error_of
from interpreter import Finished, Interpreter
from local_hub import LocalHub
from toys import SAMPLE_CORPUS, build_config, build_tokenizer
from transformers import AutoModel

from mtl_nlp.data.conll import read_conll

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test waits for all commands

VALUES = {
    name: f"qqvalue{number}of{name.lower()}"
    for number, name in enumerate(
        [
            *("KEY", "PASSWORD", "COLUMN", "LABEL", "SPLIT", "REVISION", "RUN_NAME", "NEW_RUN_NAME", "PROJECT"),
            *("REPO", "KWARG", "FOLDER", "OUTPUT", "BRANCH", "MODEL_REVISION"),
        ]
    )
}
"""Variable -> its value. Some values are paths below `FOLDER`."""

COMPONENTS = [
    "qqtrain",
    "qqdev",
    "qqdeep",
    "qqtest",
    "qqmodels",
    "qqruns",
    "qqhome",
    "qqrecipes",
    "qqcache",
    "qqtrackers",
]
"""Folders of this machine, which share no folder except the folder of the test."""


class World(NamedTuple):
    """A folder with data, an encoder and a recipe, and what was printed about them."""

    folder: Path
    hub: LocalHub
    online: Interpreter
    environment: dict[str, str]
    printed: list[Finished]
    first_received: int

    @property
    def run(self) -> Path:
        return self.folder / "qqruns" / VALUES["OUTPUT"]

    def command(self, *arguments: str, status: int = 0) -> Finished:
        finished = self.online.start_command(*arguments, **self.environment).wait(600.0)  # a comparison takes minutes
        assert finished.status == status, finished
        self.printed.append(finished)
        return finished


def write_data(folder: Path) -> None:
    """Write the sample corpus as JSON lines, each split into a folder of its own."""
    for split, place in (("train", "qqtrain"), ("validation", "qqdev/qqdeep"), ("test", f"qqtest/{VALUES['FOLDER']}")):
        (folder / place).mkdir(parents=True)
        rows = [row for file in sorted((SAMPLE_CORPUS / split).glob("*.conll")) for row in read_conll(file, COLUMNS)]
        lines = [
            json.dumps({VALUES["COLUMN"]: row["tokens"], VALUES["LABEL"]: row["ner"], "upos": row["upos"]})
            for row in rows
        ]
        (folder / place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


COLUMNS = ["tokens", "upos", "ner"]


def write_recipe(folder: Path) -> Path:
    recipe: dict[str, Any] = {
        "encoder": "../qqmodels/${QQ_KWARG}",
        "output_dir": "../qqruns/${QQ_OUTPUT}",
        "tasks": {"pos": {"type": "token-classification"}, "ner": {"type": "${QQ_UNSET:-token-classification}"}},
        "datasets": {
            "sample": {
                "path": "${QQ_UNSET:-json}",
                "data_files": {
                    "train": str(folder / "qqtrain" / "train.jsonl"),
                    "validation": ["../qqdev/qqdeep/*.jsonl"],
                    "test": "${QQ_TEST_FOLDER:-/qqtest/x}/test.jsonl",
                },
                "inputs": {"tokens": "${QQ_COLUMN}"},
                "labels": {"pos": "upos", "ner": "${QQ_LABEL}"},
                "revision": "${QQ_REVISION}",
                "storage_options": {"key": "${QQ_KEY}", "proxy": "https://ada:${QQ_PASSWORD}@host/x", "anon": True},
                "cache_dir": "${QQ_CACHE}",
            }
        },
        "mixture": {"temperature": "${QQ_UNSET:-2}", "batching": "${QQ_UNSET:-mixed}"},
        "loss": {"weights": {"ner": "${QQ_HALF}"}},
        "adapters": {"r": "${QQ_UNSET:-2}", "tasks": ["ner"], "target_modules": "all-linear", "train_encoder": False},
        "max_length": "${QQ_LENGTH}",
        "model_init_kwargs": {
            "cache_dir": str(folder / "qqcache" / "models"),
            "revision": "${QQ_MODEL_REVISION}",
        },
        "training": {
            "max_steps": "${QQ_UNSET:-2}",
            "save_strategy": "steps",
            "save_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "load_best_model_at_end": True,
            "per_device_train_batch_size": 8,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
            "project": "${QQ_PROJECT}",
            "trackio_space_id": f"--dir={folder}/qqtrackers/x",
            "hub_model_id": "ada/${QQ_REPO}",
            "hub_strategy": "all_checkpoints",
            "hub_always_push": True,
        },
        "card": {"license": "apache-2.0"},
    }
    path = folder / "qqrecipes" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(hub: LocalHub, online: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Plan, train with pushes, resume, evaluate, compare, push, export and write a Space."""
    folder = tmp_path_factory.mktemp("qqworld")
    write_data(folder)
    encoder = folder / "qqmodels" / VALUES["KWARG"]
    torch.manual_seed(0)
    AutoModel.from_config(build_config("bert")).save_pretrained(encoder)
    build_tokenizer("wordpiece").save_pretrained(encoder)
    recipe = str(write_recipe(folder))
    (folder / "qqhome").mkdir()
    environment = {f"QQ_{name}": value for name, value in VALUES.items()} | {
        "HOME": str(folder / "qqhome"),
        "QQ_TEST_FOLDER": str(folder / "qqtest" / VALUES["FOLDER"]),
        "QQ_CACHE": str(folder / "qqcache"),
        "QQ_HALF": "0.5",
        "QQ_LENGTH": "32",
    }
    made = World(folder, hub, online, environment, [], len(hub.received))
    run = str(made.run)
    overrides = ("--set", "training.run_name=${QQ_RUN_NAME}", "--set", "training.hub_revision=${QQ_BRANCH}")
    made.command("plan", recipe, *overrides)
    made.command("train", recipe, *overrides, "--set", "training.push_to_hub=true")
    changed = ("--set", "training.run_name=${QQ_NEW_RUN_NAME}", "--set", "training.max_steps=3")
    made.command("train", recipe, *overrides, *changed, "--resume")
    made.command("evaluate", run, "--recipe", recipe, *overrides)
    made.command("compare", recipe, *overrides, "--seeds", "1", "--output", str(folder / "compared"))
    (joint,) = (folder / "compared" / "runs").glob("recipe-seed-1-*")
    made.command("push", str(joint), "ada/compared")
    made.command("push", run, "ada/pushed", "--with-code")
    made.command("demo", run, "--space", str(folder / "space"))
    made.command("drop", run, str(folder / "dropped"), "--task", "pos")
    made.command("export", run, "--task", "ner", "--format", "transformers", str(folder / "stock"))
    made.command("export", run, "--task", "ner", "--format", "peft", str(folder / "adapter"))
    made.command("export", run, "--format", "onnx", str(folder / "onnx"))
    yield made


def found_in(words: list[str], contents: dict[str, bytes]) -> dict[str, list[str]]:
    """Return the words that occur in each content, without the contents that have none."""
    found = {name: [word for word in words if word.encode() in content] for name, content in contents.items()}
    return {name: each for name, each in found.items() if each}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed(world: World) -> dict[str, bytes]:
    """Return the bodies of all requests, and the decoded files of all commits."""
    return {str(number): body for number, body in enumerate(world.hub.received[world.first_received :])}


def test_the_values_are_in_the_run(world):
    """Show that the other tests search for words that can be found."""
    contents = pushed(world)
    assert found_in(["${QQ_KEY}", "${QQ_CACHE}", "${QQ_RUN_NAME}", "apache-2.0"], contents)
    for repo_id in (f"ada/{VALUES['REPO']}", "ada/pushed"):
        assert repo_id in world.hub.repositories
    branch = world.hub.files(f"ada/{VALUES['REPO']}", VALUES["BRANCH"])
    assert {"recipe.yaml", "checkpoint-1/recipe.yaml", "checkpoint-2/optimizer.pt"} <= branch.keys()
    text = yaml.safe_load((world.run / "recipe.yaml").read_text(encoding="utf-8"))
    assert text["datasets"]["sample"]["storage_options"]["key"] == "${QQ_KEY}"
    assert text["training"]["run_name"] == "${QQ_NEW_RUN_NAME}"
    assert any("training.run_name (was ${QQ_RUN_NAME}, is ${QQ_NEW_RUN_NAME})" in each.stdout for each in world.printed)


def test_no_value_of_a_variable_is_pushed(world):
    # The name of the repository is in its own card and address.
    words = [value for name, value in VALUES.items() if name not in {"REPO", "BRANCH"}]
    assert found_in(words, pushed(world)) == {}


def test_no_path_of_this_machine_is_pushed(world):
    assert found_in([*COMPONENTS, world.folder.name], pushed(world)) == {}


def test_no_value_of_a_variable_is_in_the_files_of_the_run(world):
    contents = files_of(world.run)
    assert {"recipe.yaml", "README.md", "results.json", "checkpoint-3/trainer_state.json"} <= contents.keys()
    # Trainer writes the address of the best checkpoint, which lies in the run's own folder.
    words = [value for name, value in VALUES.items() if name != "OUTPUT"]
    assert found_in(words, contents) == {}
    others = {name: content for name, content in contents.items() if not name.endswith("trainer_state.json")}
    assert found_in([VALUES["OUTPUT"]], others) == {}


def test_no_value_of_a_variable_is_in_the_files_of_a_comparison(world):
    contents = files_of(world.folder / "compared")
    assert {"comparison.json", "report.html"} <= contents.keys()
    assert len([name for name in contents if name.startswith("logs/")]) == 3
    assert found_in([*VALUES.values()], contents) == {}
    shared = {name: contents[name] for name in ("comparison.json", "report.html")}
    assert found_in([*COMPONENTS, world.folder.name], shared) == {}


def test_no_value_of_a_variable_is_printed(world):
    printed = {str(number): f"{each.stdout}{each.stderr}".encode() for number, each in enumerate(world.printed[:5])}
    assert found_in([*VALUES.values()], printed) == {}


def test_no_value_and_no_path_is_in_a_space_or_an_export(world):
    contents = {
        f"{name}/{file}": content
        for name in ("space", "stock", "adapter", "onnx", "dropped")
        for file, content in files_of(world.folder / name).items()
    }
    # The title of the Space is the name of the folder.
    words = [value for name, value in VALUES.items() if name != "OUTPUT"]
    # PEFT reads the place of the base from these two files.
    of_base = {"adapter/adapter_config.json", "adapter/README.md"}
    others = {name: content for name, content in contents.items() if name not in of_base}
    assert found_in([*words, *COMPONENTS], others) == {}


@pytest.mark.parametrize(
    "override",
    [
        *("encoder=${QQ_KEY}", "training.learning_rate=${QQ_KEY}", "training.optim=${QQ_KEY}", "freeze=[${QQ_KEY}]"),
        *("training.report_to=${QQ_KEY}", "datasets.sample.data_files.train=${QQ_KEY}", "${QQ_KEY}=1"),
        *("datasets.sample.path=ada/${QQ_KEY}", "datasets.sample.inputs.tokens=${QQ_KEY}"),
        *("datasets.sample.lines=${QQ_KEY}", "model_init_kwargs.dtype=${QQ_KEY}"),
        *("adapters.target_modules=[${QQ_KEY}]", "model_init_kwargs.attn_implementation=${QQ_KEY}"),
    ],
)
def test_errors_about_a_value_do_not_show_the_value(world, override):
    finished = world.online.command(
        "train",
        str(world.folder / "qqrecipes" / "recipe.yaml"),
        *("--set", override, "--set", f"output_dir={world.folder / 'other'}"),
        **world.environment,
    )
    assert finished.status in {1, 2}
    assert VALUES["KEY"] not in f"{finished.stdout}{finished.stderr}"
    assert len(finished.stderr.splitlines()) == 1


def test_a_folder_from_elsewhere_does_not_publish_the_environment(world, pushed_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for file in pushed_run.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    for key in ("encoder", "max_length", "output_dir"):
        (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, key: "${QQ_KEY}"}), encoding="utf-8")
        world.command("push", str(run), "ada/foreign")
        assert b"${QQ_KEY}" in world.hub.files("ada/foreign")["recipe.yaml"]
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "card": {"license": "${QQ_KEY}"}}), encoding="utf-8")
    finished = world.online.command("push", str(run), "ada/foreign-license", **world.environment)
    assert "card.license: ${QQ_KEY} is a variable, and the card is published" in error_of(finished)
    assert "ada/foreign-license" not in world.hub.repositories
