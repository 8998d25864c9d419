"""Pushes to the Hub and loading from it: contents, failures, permissions, and safety."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bare_environment import BARE_PYTHON, link_packages
from hub_faults import ALL_FILES, MESSAGE, error_of
from interpreter import Finished, Interpreter, Running
from local_hub import EVE, READER, LocalHub
from safetensors.torch import load_file
from toys import sample_recipe

from mtl_nlp import MultitaskModel
from mtl_nlp.hub.repository import repository_files

CODE = {
    "answering_multitask.py",
    "weights_multitask.py",
    "adapters_multitask.py",
    "checks_multitask.py",
    "class_kinds_multitask.py",
    "encoders_multitask.py",
    "configuration_multitask.py",
    "spans_multitask.py",
    "windows_multitask.py",
    "head_types_multitask.py",
    "heads_multitask.py",
    "hints_multitask.py",
    "label_kinds_multitask.py",
    "layers_multitask.py",
    "lora_multitask.py",
    "ragged_multitask.py",
    "loss_multitask.py",
    "modeling_multitask.py",
    "options_multitask.py",
    "parts_multitask.py",
    "pipeline_multitask.py",
    "routing_multitask.py",
    "scores_multitask.py",
    "saving_multitask.py",
    "statistics_multitask.py",
    "task_base_multitask.py",
    "tasks_multitask.py",
    "text_kinds_multitask.py",
    "unit_losses_multitask.py",
    "word_kinds_multitask.py",
    "words_multitask.py",
}

TEXTS = ["Ada Lovelace lives in Paris.", "", "I can not log in, please help! " * 20]


# Pushes


def test_a_push_is_one_commit_with_model_tokenizer_card_recipe_and_results(hub, push, pushed_run):
    assert {"checkpoint-1", "checkpoint-2"} <= {path.name for path in pushed_run.iterdir()}
    finished = push("ada/whole")
    assert finished.status == 0
    commit = hub.repositories["ada/whole"].branches["main"][-1]
    assert finished.stdout == f"Pushed 8 files: {hub.endpoint}/ada/whole/commit/{commit.id}\n"
    assert hub.commits("ada/whole") == [MESSAGE]
    assert set(hub.files("ada/whole")) == ALL_FILES
    # The predictions hold the texts of the datasets.
    assert (pushed_run / "predictions.jsonl").is_file() and "predictions.jsonl" not in ALL_FILES
    report = hub.files("ada/whole")["report.html"].decode()
    assert "The page was made without texts of the datasets." in report
    assert str(pushed_run.parent) not in report
    for name in ("model.safetensors", "results.json", "tokenizer.json"):
        assert hub.files("ada/whole")[name] == (pushed_run / name).read_bytes()
    assert not hub.repositories["ada/whole"].private


def test_measured_conflict_is_pushed_with_the_results(pushed_run, tmp_path):
    run = shutil.copytree(pushed_run, tmp_path / "run")
    assert "conflict.json" not in repository_files(run, "ada/conflict")
    (run / "conflict.json").write_text("{}")
    assert repository_files(run, "ada/conflict")["conflict.json"] == run / "conflict.json"


def test_push_contains_only_the_model_and_no_local_data(hub, online, pushed_run, private_words, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pushed_run, run)
    for name in ("training_args.bin", "optimizer.pt", "logs/events.out", "notes.txt", ".env", "runs/a.safetensors"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(" ".join(private_words))
    assert online.command("push", str(run), "ada/clean", "--with-code").status == 0
    assert set(hub.files("ada/clean")) == ALL_FILES | CODE
    assert hub.leaked([*private_words, str(run)]) == set()
    assert hub.leaked(["apache-2.0"]), "what is pushed was looked at"


def test_a_repeated_push_changes_nothing(hub, push):
    assert push("ada/again").status == 0
    finished = push("ada/again")
    assert (finished.status, finished.stderr) == (0, "")
    assert hub.commits("ada/again") == [MESSAGE]


def test_new_repository_can_be_private_and_a_bare_name_is_in_the_own_namespace(hub, push):
    assert push("mine", "--private", "--commit-message", "First").status == 0
    assert hub.repositories["ada/mine"].private
    assert hub.commits("ada/mine") == ["First"]
    assert 'model="ada/mine"' in hub.files("ada/mine")["README.md"].decode()


def test_push_to_a_branch_creates_it_and_does_not_change_main(hub, push):
    for _ in range(2):
        assert push("ada/branched", "--revision", "new/heads").status == 0
    assert hub.commits("ada/branched", "new/heads") == [MESSAGE]
    assert hub.commits("ada/branched") == []


def test_pull_request_can_be_opened_without_write_permission(hub, push):
    assert push("ada/asked").status == 0
    hub.put("ada/asked", {"results.json": b"{}"})
    finished = push("ada/asked", "--create-pr", HF_TOKEN=EVE)
    assert finished.stdout == f"Pushed 8 files: {hub.endpoint}/ada/asked/discussions/1\n"
    assert hub.commits("ada/asked") == [MESSAGE, "Put"]
    assert hub.commits("ada/asked", "refs/pr/1") == [MESSAGE, "Put", MESSAGE]


def test_differently_sharded_weights_replace_the_old_weights_only(hub, online, push, pushed_run, tmp_path):
    shutil.copytree(pushed_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
    MultitaskModel.from_pretrained(pushed_run).save_pretrained(tmp_path / "run", max_shard_size="60KB")
    hub.put("ada/sharded", {"notes.txt": b"mine", "more/model.safetensors": b"of another model"})
    assert online.command("push", str(tmp_path / "run"), "ada/sharded").status == 0
    weights = {name for name in hub.files("ada/sharded") if name.startswith("model")}
    assert len(weights) > 2
    assert "model.safetensors.index.json" in weights
    assert push("ada/sharded").status == 0
    assert set(hub.files("ada/sharded")) == ALL_FILES | {"notes.txt", "more/model.safetensors"}
    assert hub.commits("ada/sharded") == ["Put", MESSAGE, MESSAGE]


def test_push_to_hub_of_the_model_pushes_only_the_model(hub, online, pushed_run, private_words):
    program = """
import sys
from mtl_nlp import MultitaskModel
MultitaskModel.from_pretrained(sys.argv[1]).push_to_hub("bare")
"""
    assert online.run(program, str(pushed_run)).status == 0
    assert set(hub.files("ada/bare")) == {"README.md", "config.json", "model.safetensors"}
    assert hub.leaked(private_words) == set()


def test_folder_without_a_model_is_not_pushed(hub, online, encoder_folder, tmp_path):
    assert "There is no folder ada/whole" in error_of(online.command("push", "ada/whole", "ada/nothing"))
    assert "cannot be loaded" in error_of(online.command("push", str(tmp_path), "ada/nothing"))
    message = "holds a bert model without multitask heads"
    assert message in error_of(online.command("push", encoder_folder("bert"), "ada/nothing"))
    assert "ada/nothing" not in hub.repositories


# Loading with and without mtl_nlp


@pytest.fixture(scope="module")
def shared(hub: LocalHub, online: Interpreter, pushed_run: Path) -> dict[str, Any]:
    """Push the model as ada/shared and, with its code, as ada/coded; return the answers of the local model."""
    assert online.command("push", str(pushed_run), "ada/shared").status == 0
    assert online.command("push", str(pushed_run), "ada/shared", "--revision", "side").status == 0
    assert online.command("push", str(pushed_run), "ada/coded", "--with-code").status == 0
    return json.loads(online.run(ANSWER, str(pushed_run), "None", "multitask").stdout.splitlines()[-1])


ANSWER = f"""
import json, sys
source, revision, task = sys.argv[1:]
if task == "multitask":
    import mtl_nlp
import torch
from transformers import AutoModel, pipeline
trust = {{}} if task == "multitask" else {{"trust_remote_code": True}}
revision = {{}} if revision == "None" else {{"revision": revision}}
model = AutoModel.from_pretrained(source, **revision, **trust).eval()
given = torch.arange(5, 45).reshape(2, 20)
with torch.no_grad():
    logits = {{name: values.tolist() for name, values in model(input_ids=given).logits.items()}}
answer = pipeline(*(["multitask"] if task == "multitask" else []), model=source, **revision, **trust)
print()
print(json.dumps({{"logits": logits, "answers": answer({TEXTS}), "class": type(model).__module__}}))
"""


@pytest.mark.parametrize("source", ["ada/shared", "ada/coded"])
def test_hub_model_gives_equal_numbers_with_mtl_nlp(online, shared, source):
    found = json.loads(online.run(ANSWER, source, "None", "multitask").stdout.splitlines()[-1])
    assert found == shared
    assert found["class"] == "mtl_nlp.modeling.modeling_multitask"


def test_revision_is_loaded_unchanged(hub, online, shared):
    first = hub.repositories["ada/shared"].branches["main"][-1].id
    content = json.loads(hub.files("ada/shared")["config.json"])
    for task in content["tasks"]:
        task["labels"] = [f"{label}!" for label in task["labels"]] if task["name"] == "topic" else task["labels"]
    hub.put("ada/shared", {"config.json": json.dumps(content).encode()})
    program = """
import sys
from mtl_nlp import MultitaskConfig, MultitaskModel
from transformers import AutoConfig
for revision in sys.argv[1:]:
    model = MultitaskModel.from_pretrained("ada/shared", revision=revision)
    assert model.tasks["topic"] == AutoConfig.from_pretrained("ada/shared", revision=revision).get_tasks()[2]
    print(model.tasks["topic"].labels[0])
"""
    finished = online.run(program, "main", "side", first)
    assert finished.stdout.split() == ["email!", "email", "email"], finished.stderr
    found = json.loads(online.run(ANSWER, "ada/shared", "side", "multitask").stdout.splitlines()[-1])
    assert found["answers"] == shared["answers"]


def run_with_packages(
    packages: Sequence[str], hub: LocalHub, folder: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment that has only some packages, without mtl_nlp, and finds the Hub."""
    link_packages(packages, folder / "packages")
    environment = {**os.environ, **hub.environment(folder), "PYTHONPATH": str(folder / "packages")}
    return subprocess.run(
        [*BARE_PYTHON, "-c", program, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def printed_lines(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that a successful program printed."""
    assert finished.returncode == 0, finished.stderr
    return [line for line in finished.stdout.splitlines() if line]


def test_hub_model_with_code_gives_equal_numbers_without_mtl_nlp(hub, shared, tmp_path):
    refused = """
import sys
from importlib.util import find_spec
assert not find_spec("mtl_nlp") and not find_spec("peft")
from transformers import AutoModel, pipeline
for load in (lambda: AutoModel.from_pretrained("ada/coded"), lambda: pipeline(model="ada/coded")):
    try:
        load()
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise AssertionError("its code was run unasked")
assert not any(name.startswith("transformers_modules.") for name in sys.modules)
"""
    finished = run_with_packages(
        ["torch", "transformers"], hub, tmp_path, refused + ANSWER, "ada/coded", "None", "none"
    )
    found = json.loads(printed_lines(finished)[-1])
    assert found["class"].startswith("transformers_modules.ada.coded.")
    assert {**found, "class": shared["class"]} == shared


def test_pushed_weights_equal_those_of_the_folder(hub, shared, pushed_run, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(hub.files("ada/coded")["model.safetensors"])
    theirs, ours = load_file(tmp_path / "model.safetensors"), load_file(pushed_run / "model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


# Models with adapters


@pytest.fixture(scope="module")
def adapted(
    online: Interpreter, encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Push a run with adapters as ada/adapted and, with its code, as ada/adapted-coded; return its folder."""
    folder = tmp_path_factory.mktemp("adapted")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["adapters"] = {"r": 2, "tasks": ["ner", "topic"], "shared": True, "target_modules": "all-linear"}
    recipe["training"]["learning_rate"] = 0.05
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    finished = online.command("train", str(folder / "recipe.yaml"))
    assert finished.status == 0, finished.stderr
    assert online.command("push", str(folder / "run"), "ada/adapted").status == 0
    assert online.command("push", str(folder / "run"), "ada/adapted-coded", "--with-code").status == 0
    return folder / "run"


@pytest.fixture(scope="module")
def adapted_answers(online: Interpreter, adapted: Path) -> dict[str, Any]:
    """Return the answers of the local model."""
    return json.loads(online.run(ANSWER, str(adapted), "None", "multitask").stdout.splitlines()[-1])


def test_adapters_are_pushed_completely(hub, adapted, tmp_path):
    for repo_id in ("ada/adapted", "ada/adapted-coded"):
        files = hub.files(repo_id)
        assert set(files) == (ALL_FILES if repo_id == "ada/adapted" else ALL_FILES | CODE)
        assert [options["name"] for options in json.loads(files["config.json"])["adapters"]] == [
            *("shared", "ner", "topic")
        ]
        assert files["model.safetensors"] == (adapted / "model.safetensors").read_bytes()
    names = load_file(adapted / "model.safetensors").keys()
    for adapter in ("shared", "task_ner", "task_topic"):
        assert sum(f".{adapter}." in name for name in names) == 24  # A and B of six linear layers in two encoder layers


@pytest.mark.parametrize("source", ["ada/adapted", "ada/adapted-coded"])
def test_hub_model_with_adapters_gives_equal_numbers_with_mtl_nlp(online, adapted_answers, source):
    assert json.loads(online.run(ANSWER, source, "None", "multitask").stdout.splitlines()[-1]) == adapted_answers


def test_hub_model_with_adapters_gives_equal_numbers_without_mtl_nlp(hub, adapted_answers, tmp_path):
    merged = """
from transformers import pipeline
alone = pipeline(model="ada/adapted-coded", trust_remote_code=True, merge_task="ner")
for given, one in zip(TEXTS, alone(TEXTS)):
    (found,) = one.items()
    print(json.dumps([given, *found]))
"""
    program = f"TEXTS = {TEXTS}\nimport json" + merged + ANSWER
    packages = ["torch", "transformers", "peft"]
    finished = run_with_packages(packages, hub, tmp_path, program, "ada/adapted-coded", "None", "none")
    *alone, last = printed_lines(finished)
    found = json.loads(last)
    assert found["class"].startswith("transformers_modules.ada.")
    assert {**found, "class": adapted_answers["class"]} == adapted_answers
    for line, text, whole in zip(alone, TEXTS, adapted_answers["answers"], strict=True):
        given, task, entries = json.loads(line)
        assert (given, task) == (text, "ner")
        assert [entry["word"] for entry in entries] == [entry["word"] for entry in whole["ner"]]
        assert [entry["score"] for entry in entries] == pytest.approx(
            [entry["score"] for entry in whole["ner"]], abs=1e-5
        )


def test_model_code_with_adapters_names_the_package_that_it_needs(hub, adapted, tmp_path):
    program = """
from transformers import pipeline
pipeline(model="ada/adapted-coded", trust_remote_code=True)
"""
    finished = run_with_packages(["torch", "transformers"], hub, tmp_path, program)
    assert finished.returncode == 1
    message = "ImportError: A model with adapters needs PEFT: pip install peft. (No module named 'peft')"
    assert finished.stderr.splitlines()[-1] == message


def test_a_pushed_model_with_adapters_answers_and_is_exported_from_the_hub(online, adapted, tmp_path):
    (tmp_path / "texts.txt").write_text("Ada lives in Paris.\n")
    assert online.command("predict", "ada/adapted", str(tmp_path / "texts.txt")).status == 0
    command = ("export", "ada/adapted", "--task", "ner", "--format", "peft", str(tmp_path / "out"))
    finished = online.command(*command)
    assert finished.status == 0, finished.stderr
    assert finished.stdout.startswith(f"The adapter is in {tmp_path / 'out'}, for {tmp_path / 'out' / 'base'}: ")


# Repositories without a usable model


@pytest.fixture(scope="module")
def start_predicting(online: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Running]:
    """Return a function that starts a prediction: (repository, …) -> the running program."""
    texts = tmp_path_factory.mktemp("texts") / "texts.txt"
    texts.write_text("Ada lives in Paris.\n")

    def start(repo_id: str, **environment: str) -> Running:
        return online.start_command("predict", repo_id, str(texts), **environment)

    return start


@pytest.fixture
def predict(start_predicting: Callable[..., Running]) -> Callable[..., Finished]:
    """Return a function that runs a prediction: (repository, …) -> the result."""
    return lambda *arguments, **environment: start_predicting(*arguments, **environment).wait()


def test_repository_without_a_multitask_model_is_named(hub, predict, encoder_folder):
    encoder = {path.name: path.read_bytes() for path in Path(encoder_folder("bert")).iterdir()}
    hub.put("ada/encoder", encoder)
    hub.put("ada/empty", {"notes.txt": b"nothing else"})
    assert "ada/encoder holds a bert model without multitask heads" in error_of(predict("ada/encoder"))
    assert "ada/empty cannot be loaded: Unrecognized model" in error_of(predict("ada/empty"))
    assert "ada/missing cannot be loaded: ada/missing is not a local folder" in error_of(predict("ada/missing"))


def test_private_repository_is_visible_to_its_owner_only(hub, predict, shared):
    hub.put("ada/secret", hub.files("ada/coded"), private=True)
    for token in ("", EVE):
        line = error_of(predict("ada/secret", HF_TOKEN=token))
        assert "ada/secret is not a local folder" in line
        assert "hf auth login" in line
    assert predict("ada/secret", HF_TOKEN=READER).status == 0


CUT_OFF = {
    "cut-config": ({"cut": 900}, "config.json", " cannot be loaded: the connection to the Hub failed (peer closed"),
    "cut-weights": ({"cut": 900}, "model.safetensors", " cannot be loaded: the connection to the Hub failed (peer"),
    "cut-words": ({"cut": 900}, "tokenizer.json", ": the tokenizer cannot be loaded: the connection to the Hub failed"),
    "short-weights": ({"short": 900}, "model.safetensors", " cannot be loaded: Consistency check failed: file should"),
    "no-weights": ({"status": 500}, "model.safetensors", " cannot be loaded: There was a specific connection error"),
}
"""The name of the repository -> the fault, the affected file, and the message."""


@pytest.fixture(scope="module")
def cut_off(hub: LocalHub, shared: Any, start_predicting: Callable[..., Running]) -> dict[str, Finished]:
    """Load all models of `CUT_OFF` at the same time, since each download is repeated for five seconds."""
    for name, (fault, path, _) in CUT_OFF.items():
        hub.put(f"ada/{name}", hub.files("ada/coded"))
        hub.fail(f"ada/{name}", "download", path=path, **fault)
    running = {name: start_predicting(f"ada/{name}") for name in CUT_OFF}
    return {name: program.wait() for name, program in running.items()}


@pytest.mark.parametrize("name", CUT_OFF)
def test_file_truncated_during_download_is_reported_in_one_line_and_not_kept(hub, cut_off, predict, name):
    assert f"ada/{name}{CUT_OFF[name][2]}" in error_of(cut_off[name])
    hub.heal(f"ada/{name}")
    assert predict(f"ada/{name}").status == 0


def test_file_truncated_on_the_hub_is_reported_in_one_line(hub, predict, shared):
    files = hub.files("ada/coded")
    hub.put("ada/half", {**files, "model.safetensors": files["model.safetensors"][:5000]})
    assert "ada/half: the weights file is damaged or truncated" in error_of(predict("ada/half"))


def test_loading_waits_for_temporary_faults_and_slow_answers(hub, predict, shared):
    hub.put("ada/slow", hub.files("ada/coded"))
    hub.fail("ada/slow", "download", path="model.safetensors", cut=900, times=1)
    hub.fail("ada/slow", "download", path="config.json", delay=1.5)
    finished = predict("ada/slow")
    assert finished.status == 0
    assert finished.stderr == "1 text answered.\n"


# Safety of loading


class Malicious:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


LOADERS = """
import json, sys
from pathlib import Path
import mtl_nlp
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from transformers import AutoModel, pipeline
loaders = {
    "class": mtl_nlp.MultitaskModel.from_pretrained,
    "pipeline": lambda name: pipeline("multitask", model=name),
    "command": lambda name: load_model_tokenizer(name, load_model(name).config),
    "trusting": lambda name: AutoModel.from_pretrained(name, trust_remote_code=True),
}
marker, outcomes = Path(sys.argv[1]), {}
for name in sys.argv[2:]:
    for kind, load in loaders.items():
        if (kind == "trusting") != name.endswith("/control"):
            continue
        try:
            outcome = "loaded" if load(name) else ""
        except Exception as error:
            outcome = type(error).__name__
        outcomes[f"{name} by {kind}"] = [outcome, "ran" if marker.exists() else "safe"]
        marker.unlink(missing_ok=True)
print()
print(json.dumps(outcomes))
"""

OWN_CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}

OTHERS_CODE = {"AutoConfig": "mallory/kernel--evil.Config", "AutoModel": "mallory/kernel--evil.Model"}

IN_THE_ENCODER = {
    "trusted": {"trust_remote_code": True, "auto_map": OWN_CODE},
    "trusted-elsewhere": {"trust_remote_code": True, "auto_map": OTHERS_CODE},
    "kernel": {"attn_implementation": "mallory/kernel", "_attn_implementation": "mallory/kernel"},
    "experts": {"experts_implementation": "mallory/kernel", "_experts_implementation": "mallory/kernel"},
}

AT_THE_TOP = {
    **IN_THE_ENCODER,
    "kernel-of-the-encoder": {"attn_implementation": {"": "sdpa", "text_config": "mallory/kernel"}},
    "kernel-set-late": {"_attn_implementation": "kernels-community/flash-attn2"},
}


def test_loading_runs_no_code_and_reads_no_other_repository(hub, online, shared, tmp_path):
    files, marker = hub.files("ada/shared"), tmp_path / "marker"
    evil = f"open({str(marker)!r}, 'w').close()\nfrom transformers import BertConfig as Config, BertModel as Model\n"
    config = json.loads(files["config.json"])
    hub.put("mallory/kernel", {"evil.py": evil.encode(), "build.py": evil.encode()})

    def put(name: str, content: Mapping[str, Any], **more: bytes) -> None:
        hub.put(f"eve/{name}", {**files, "config.json": json.dumps(content).encode(), "evil.py": evil.encode(), **more})

    for name, keys in IN_THE_ENCODER.items():
        put(f"encoder-{name}", {**config, "text_config": {**config["text_config"], **keys}})
    deep = {**config["text_config"], "sub_config": {"model_type": "bert", **IN_THE_ENCODER["trusted"]}}
    put("deep", {**config, "text_config": deep})
    for name, keys in AT_THE_TOP.items():
        put(f"top-{name}", {**config, **keys})
    put("pipeline", {**config, "custom_pipelines": {"other": {"impl": "evil.Model", "pt": ["AutoModel"]}}})
    loading = [name for name in hub.repositories if name.startswith("eve/")]

    unknown = {"model_type": "evil", "trust_remote_code": True, "auto_map": OWN_CODE}
    put("family", {**config, "text_config": {**config["text_config"], **unknown}})
    put("control", unknown)
    tokenizer = {**json.loads(files["tokenizer_config.json"]), "tokenizer_class": "Tokenizer", "auto_map": OWN_CODE}
    put("tokenizer", config, **{"tokenizer_config.json": json.dumps(tokenizer).encode()})
    packed = io.BytesIO()
    torch.save({"weights": Malicious(marker)}, packed)
    for name, content in (("pickle", pickle.dumps(Malicious(marker), 2)), ("packed-pickle", packed.getvalue())):
        others = {path: data for path, data in files.items() if path != "model.safetensors"}
        hub.put(f"eve/{name}", {**others, "pytorch_model.bin": content})

    before = len(hub.requests)
    finished = online.run(LOADERS, str(marker), *[name for name in hub.repositories if name.startswith("eve/")])
    assert finished.status == 0, finished.stderr
    outcomes = json.loads(finished.stdout.splitlines()[-1])
    assert outcomes.pop("eve/control by trusting")[1] == "ran", "the marker would not show anything"
    assert {safety for _, safety in outcomes.values()} == {"safe"}
    assert {outcomes[f"{name} by {kind}"][0] for name in loading for kind in ("class", "pipeline", "command")} == {
        "loaded"
    }
    for name in ("family", "tokenizer", "pickle", "packed-pickle"):
        assert outcomes[f"eve/{name} by command"][0] == "ModelError"
    assert outcomes["eve/tokenizer by pipeline"][0] == "ValueError"
    assert not [request for request in hub.requests[before:] if "mallory/kernel" in request or "kernels-" in request]
