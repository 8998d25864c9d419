"""A recipe with code of its user: a task type, a head, a metric, and functions that change and choose rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import yaml
from command_line import fails, write
from toys import sample_recipe
from transformers import CONFIG_MAPPING, pipeline

from mtl_nlp import TASK_TYPES, Recipe
from mtl_nlp.cli.main import main
from mtl_nlp.evaluation.own_metrics import OWN_METRICS
from mtl_nlp.modeling.head_types_multitask import HEADS
from mtl_nlp.run.build import build_model
from mtl_nlp.run.prepare import prepare

MODULE = '''
from torch import nn

from mtl_nlp import TextClassification, register_head, register_metric, register_task_type
from mtl_nlp.modeling.text_kinds_multitask import ClassPerText


@register_head("attention")
class AttentionPooling(nn.Module):
    """Reads a text as the mean of its sub-words, weighted by a learned score."""

    def __init__(self, config, level, size=64):
        super().__init__()
        if level != "sequence":
            raise ValueError("the head `attention` is for tasks that label texts")
        self.score = nn.Sequential(nn.Linear(config.hidden_size, size), nn.Tanh(), nn.Linear(size, 1))
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states, attention_mask):
        scores = self.score(hidden_states).squeeze(-1).masked_fill(attention_mask == 0, -1e4)
        return self.output((scores.softmax(-1)[..., None] * hidden_states).sum(1))


@register_metric("work_or_not")
def work_or_not(predictions, references):
    pairs = [(p == "work", r == "work") for p, r in zip(predictions, references)]
    return {"work_or_not": sum(p == r for p, r in pairs) / len(pairs)}


class Topic(ClassPerText):
    metric = "work_or_not"
    primary_score = "work_or_not"


@register_task_type
class TopicTask(TextClassification):
    type = "topic"

    def make_kind(self):
        return Topic(self.name, self.labels)


def lower(row):
    return {"tokens": [token.lower() for token in row["tokens"]]}


def is_short(row):
    return len(row["tokens"]) <= 40
'''


def forget() -> None:
    """Forget the module and what it has registered, as a new process."""
    sys.modules.pop("my_module", None)
    for registry, name in ((HEADS, "attention"), (OWN_METRICS, "work_or_not"), (TASK_TYPES, "topic")):
        registry.pop(name, None)


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory) -> Iterator[Path]:
    """Return a folder with `my_module.py`, `recipe.yaml`, and the run of the train command in `run`."""
    folder = tmp_path_factory.mktemp("own_code")
    (folder / "my_module.py").write_text(MODULE)
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["imports"] = ["my_module"]
    recipe["tasks"]["topic"] = {"type": "topic", "head": {"type": "attention", "size": 8}}
    recipe["tasks"]["ner"]["head"] = {"hidden_layers": 1, "dropout": 0.2}
    recipe["datasets"]["sample"] |= {"map": "my_module:lower", "filter": "my_module:is_short"}
    recipe["freeze"] = ["embeddings", "layers 0"]
    recipe["training"]["layer_lr_decay"] = 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(sys, "path", [*sys.path])
        assert main(["train", write(folder / "recipe.yaml", recipe), "--allow-code"]) == 0
        yield folder
        forget()


def test_no_command_runs_code_that_is_not_allowed(folder, capsys):
    recipe, run = str(folder / "recipe.yaml"), str(folder / "run")
    saved = str(folder / "run" / "recipe.yaml")
    for command in (
        ["plan", recipe],
        ["train", recipe, "--overwrite"],
        ["train", saved, "--resume"],
        ["evaluate", run, "--recipe", saved],
        ["inspect", run, "--recipe", saved],
        ["compare", recipe, "--dry-run"],
    ):
        forget()
        assert ": the recipe runs the Python code of " in fails(capsys, *command)
        assert "my_module" not in sys.modules


def test_the_run_has_own_scores_rows_heads_and_the_hash_of_the_code(folder):
    results = json.loads((folder / "run" / "results.json").read_text())
    assert list(results["tasks"]["topic"]) == ["work_or_not"]
    assert list(results["provenance"]["own_code"]) == ["my_module"]
    config = json.loads((folder / "run" / "config.json").read_text())
    topic = next(task for task in config["tasks"] if task["name"] == "topic")
    assert topic["head"] == {"type": "attention", "size": 8}
    assert (topic["module"], topic["head_module"]) == ("my_module", "my_module")
    recipe = yaml.safe_load((folder / "run" / "recipe.yaml").read_text())
    assert recipe["imports"] == [str(folder / "my_module.py")]
    rows = [json.loads(line) for line in (folder / "run" / "predictions.jsonl").read_text().splitlines()]
    assert rows and all(len(row["tokens"]) <= 40 for row in rows)
    assert all(token == token.lower() for row in rows for token in row["tokens"])


def test_the_saved_recipe_scores_the_model_in_a_new_process_that_allows_its_code(folder, tmp_path, capsys):
    forget()
    command = ["evaluate", str(folder / "run"), "--recipe", str(folder / "run" / "recipe.yaml")]
    assert main([*command, "--output", str(tmp_path / "results.json"), "--allow-code"]) == 0
    found, expected = (
        json.loads(path.read_text()) for path in (tmp_path / "results.json", folder / "run/results.json")
    )
    assert found["tasks"]["topic"] == pytest.approx(expected["tasks"]["topic"])
    assert found["provenance"]["own_code"] == expected["provenance"]["own_code"]


def test_a_comparison_plans_the_runs_of_a_recipe_with_code(folder, capsys):
    forget()
    assert main(["compare", str(folder / "recipe.yaml"), "--seeds", "1", "--dry-run", "--allow-code"]) == 0
    assert "single topic, seed 1" in capsys.readouterr().out


def test_other_commands_name_the_module_of_a_saved_model_and_import_it_when_told_so(folder, tmp_path, capsys):
    forget()
    text = write(tmp_path / "a.txt", "The fox jumps.\n")
    line = fails(capsys, "predict", str(folder / "run"), text)
    assert "For a type from outside of mtl_nlp, import the module 'my_module' first." in line
    line = fails(capsys, "report", str(folder / "run"))
    assert "config.json: Task 'topic': " in line and "import the module 'my_module' first" in line
    assert main(["predict", str(folder / "run"), text, "--import", str(folder / "my_module.py")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answers"].keys() == {"pos", "ner", "topic"}


ENCODER = """
from transformers import AutoConfig, AutoModel, BertConfig, BertModel


class OwnConfig(BertConfig):
    model_type = "own-bert"


class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state + 1.0
        return output


AutoConfig.register("own-bert", OwnConfig, exist_ok=True)
AutoModel.register(OwnConfig, OwnModel, exist_ok=True)
"""


def test_an_encoder_of_a_module_under_imports_is_used_saved_and_loaded(encoder_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    shutil.copytree(encoder_folder("bert"), tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    config |= {"model_type": "own-bert", "auto_map": {"AutoModel": "modeling_own.OwnModel"}}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(config))
    (tmp_path / "own_encoder.py").write_text(ENCODER)
    data = sample_recipe(str(tmp_path / "encoder"), tmp_path / "run", max_steps=1)
    path = write(tmp_path / "recipe.yaml", {**data, "imports": ["own_encoder"]})
    recipe = Recipe.load(path, allow_code=True)
    assert list(recipe.own_code) == ["own_encoder"]
    run = prepare(recipe)
    assert not [note for note in run.notes if "code of its own" in note]
    model = build_model(run).eval()
    assert type(model.encoder).__name__ == "OwnModel"
    model.save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    text = write(tmp_path / "a.txt", "The fox jumps.\n")
    del sys.modules["own_encoder"]
    CONFIG_MAPPING._extra_content.pop("own-bert")
    line = fails(capsys, "predict", str(tmp_path / "saved"), text)
    assert "transformers has no model of the type 'own-bert'" in line and "import the module that registers" in line
    assert main(["predict", str(tmp_path / "saved"), text, "--import", str(tmp_path / "own_encoder.py")]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    topic = json.loads(row)["answers"]["topic"][0]
    expected = pipeline("multitask", model=model, tokenizer=run.tokenizer)("The fox jumps.")["topic"][0]
    assert topic == {**expected, "score": pytest.approx(expected["score"], abs=1e-4)}
