"""The folder of a Hub Space: its content, and its answers without mtl_nlp."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from bare_environment import BARE_PYTHON, link_packages
from chromium import LAPTOP, chromium, eventually, needs_chromium, page_url
from peft import LoraConfig
from toys import lively_model, liven_adapters
from transformers import pipeline

from mtl_nlp import TextClassification
from mtl_nlp.cli.main import main
from mtl_nlp.serving import page
from mtl_nlp.serving.space import write_space

TITLE = 'Ada\'s "model": <i>POS</i> & topics {0} 😀'
SENTENCE = "Ada Lovelace can't live in Paris, near the river bank."


class App(NamedTuple):
    """A running Space and the folder of its output."""

    process: subprocess.Popen
    folder: Path


@pytest.fixture(scope="module")
def space(pushed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "new" / "space"
    write_space(str(pushed_run), folder, TITLE)
    return folder


@pytest.fixture(scope="module")
def adapted_space(tokenizers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the Space of a model with an adapter; return its folder."""
    folder = tmp_path_factory.mktemp("adapted")
    model = lively_model([TextClassification(name="topic", labels=["x", "y"])])
    model.add_adapter(LoraConfig(r=2, target_modules="all-linear"), "topic")
    liven_adapters(model).save_pretrained(folder / "model")
    tokenizers["wordpiece"].save_pretrained(folder / "model")
    write_space(str(folder / "model"), folder / "space", TITLE)
    return folder / "space"


def requirements_of(space: Path) -> list[str]:
    return (space / "requirements.txt").read_text(encoding="utf-8").split()


def bare_environment(folder: Path) -> dict[str, str]:
    """Return environment variables with which an interpreter finds the packages in a folder, and no GPU."""
    return {**os.environ, "PYTHONPATH": str(folder / "packages"), "HF_HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def app(space: Path, tmp_path: Path) -> Iterator[App]:
    """Run `python app.py` with the packages that the Hub installs: the requirements, and gradio from the README."""
    link_packages([*requirements_of(space), f"gradio=={version('gradio')}"], tmp_path / "packages")
    environment = bare_environment(tmp_path)
    with (tmp_path / "stdout").open("w") as stdout, (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen([*BARE_PYTHON, "app.py"], cwd=space, env=environment, stdout=stdout, stderr=stderr)
        try:
            yield App(process, tmp_path)
        finally:
            process.kill()
            process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_space_has_page_model_code_and_requirements(space, pushed_run):
    files = contents(space)
    code = {name for name in files if name.startswith("model/") and name.endswith("_multitask.py")}
    assert "model/pipeline_multitask.py" in code
    assert files.keys() - code == {
        "README.md",
        "app.py",
        "page.py",
        "requirements.txt",
        *(f"model/{name}" for name in ("README.md", "config.json", "model.safetensors", "recipe.yaml")),
        *(f"model/{name}" for name in ("results.json", "tokenizer.json", "tokenizer_config.json")),
    }
    assert files["model/model.safetensors"] == (pushed_run / "model.safetensors").read_bytes()
    assert files["page.py"] == Path(page.__file__).read_bytes()
    start, header, rest = files["README.md"].decode().split("---\n")
    assert (start, rest) == ("", "")
    assert yaml.safe_load(header) == {
        "title": TITLE,
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
    }


def test_space_has_no_local_data(space, private_words):
    everything = b"".join(contents(space).values())
    assert [word for word in private_words if word.encode() in everything] == []


ANSWER = """
import json, sys
from importlib.util import find_spec
from transformers import pipeline
assert not find_spec("mtl_nlp")
answer = pipeline(model="model", trust_remote_code=True, device="cpu")
print(json.dumps({"answers": answer(sys.argv[1], top_k=None), "peft": find_spec("peft") is not None}))
"""


@pytest.mark.parametrize("adapters", [False, True])
def test_space_requires_exactly_the_packages_that_its_model_needs(space, adapted_space, tmp_path, adapters):
    folder = adapted_space if adapters else space
    expected = pipeline("multitask", model=str(folder / "model"), device="cpu")(SENTENCE, top_k=None)
    versions = {name: version(name) for name in ("transformers", "peft")}
    peft = [f"peft=={versions['peft']}"] if adapters else []
    assert requirements_of(folder) == ["torch", f"transformers=={versions['transformers']}", *peft]
    link_packages(requirements_of(folder), tmp_path / "packages")
    finished = subprocess.run(
        [*BARE_PYTHON, "-c", ANSWER, SENTENCE],
        cwd=folder,
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == {"answers": expected, "peft": adapters}


@needs_chromium
def test_space_answers_without_mtl_nlp(app, pushed_run):
    expected = pipeline("multitask", model=str(pushed_run), device="cpu")(SENTENCE, top_k=None)
    with chromium() as page:
        page.open(page_url(app.folder / "stdout"))
        assert page.find("h1").text == page.driver.title == TITLE
        page.ask(SENTENCE)
        eventually(lambda: page.marked(0).marks, [[entry["word"], entry["label"]] for entry in expected["pos"]])
        eventually(lambda: page.marked(1).marks, [[span["word"], span["entity_group"]] for span in expected["ner"]])
        topics = [(entry["label"], f"{entry['score']:.0%}") for entry in expected["topic"]]
        eventually(lambda: [row[:2] for row in page.bars(2)], topics)
        height = page.driver.execute_script("return document.documentElement.scrollHeight")
        assert height <= LAPTOP[1], "all tasks are seen without scrolling"
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(timeout=20) == 0
    assert "Traceback" not in (app.folder / "stderr").read_text(encoding="utf-8")


def test_a_model_on_the_hub_becomes_the_same_space(hub, online, space, pushed_run, tmp_path):
    hub.put("ada/shown", contents(pushed_run))
    finished = online.command("demo", "ada/shown", "--space", str(tmp_path / "space"))
    assert (finished.status, finished.stderr) == (0, "")
    assert (
        finished.stdout == f"The Space is in {tmp_path}/space: hf upload YOU/NAME {tmp_path}/space --repo-type space\n"
    )
    of_folder, of_hub = contents(space), contents(tmp_path / "space")
    assert of_hub.keys() == of_folder.keys()
    titled = {"README.md", "app.py", "model/README.md"}
    # The configuration of the tokenizer records whether it was read from a folder.
    differing = {name for name in of_hub if of_hub[name] != of_folder[name]} - {"model/tokenizer_config.json"}
    assert differing == titled
    assert "title: shown\n" in of_hub["README.md"].decode()


def test_missing_repository_is_reported_in_one_line(online, tmp_path):
    finished = online.command("demo", "ada/nothing", "--space", str(tmp_path / "space"))
    assert (finished.status, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("mtl-nlp: error: There is no folder ada/nothing. ada/nothing cannot be loaded: ")
    assert not (tmp_path / "space").exists()


def test_folder_without_a_model_is_not_written_as_space(tmp_path, capsys):
    assert main(["demo", str(tmp_path), "--space", str(tmp_path / "space")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mtl-nlp: error: {tmp_path} cannot be loaded: ")
    assert not (tmp_path / "space").exists()


def test_unwritable_space_is_reported_in_one_line(pushed_run, tmp_path, capsys):
    space = tmp_path / "space"
    space.write_text("a file")
    for path, problem in ((space, "should be a new or empty folder."), (space / "below", "cannot be written to: ")):
        assert main(["demo", str(pushed_run), "--space", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mtl-nlp: error: --space: {path} {problem}")


def test_a_space_does_not_overwrite_files(pushed_run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["demo", str(pushed_run), "--space", str(tmp_path)]) == 2
    assert f"--space: {tmp_path} should be a new or empty folder." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
