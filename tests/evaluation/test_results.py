from __future__ import annotations

import json
import subprocess
from importlib.metadata import version

import pytest
from datasets import Dataset

import mtl_nlp
from mtl_nlp.data.conll import DataError
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import read_results, results, training_in, write_results

EVALUATION = Evaluation({"pos": {"accuracy": 0.9}, "ner": {"f1": 0.7, "precision": 0.6, "recall": 0.8}}, 0.8)


@pytest.fixture
def content() -> dict:
    windows = Dataset.from_dict({"row": [0]})
    encoded = EncodedDataset("ewt/test", windows, {"pos": windows["row"]}, 0, 0, "0f1e")
    return results("test", EVALUATION, {"ewt": encoded}, "abc")


def test_results_have_the_keys_of_the_contract(content):
    assert list(content) == ["split", "tasks", "mtl_score", "provenance"]
    assert content["split"] == "test"
    assert content["tasks"] == EVALUATION.scores
    assert content["mtl_score"] == 0.8
    assert set(content["provenance"]) == {"mtl_nlp", "versions", "commit", "recipe_sha256", "data_fingerprints"}


def test_provenance_names_versions_recipe_and_data(content):
    provenance = content["provenance"]
    assert provenance["mtl_nlp"] == mtl_nlp.__version__
    assert (
        provenance["versions"].items() >= {"torch": version("torch"), "transformers": version("transformers")}.items()
    )
    assert provenance["recipe_sha256"] == "abc"
    assert provenance["data_fingerprints"] == {"ewt/test": "0f1e"}


def test_the_commit_is_that_of_the_working_folder_and_none_outside_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results("test", EVALUATION, {}, "abc")["provenance"]["commit"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert results("test", EVALUATION, {}, "abc")["provenance"]["commit"] == head


def test_what_is_written_reads_back_the_same(content, tmp_path):
    content["tasks"] = {"größe": {"mse": 1.5}}
    write_results(tmp_path / "results.json", content)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "größe" in text
    assert text.endswith("}\n")


def test_damaged_results_are_named_and_can_be_written_anew(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path) == {}
    assert training_in(path) is None
    write_results(path, {"training": {"steps": 3}})
    assert training_in(path) == {"steps": 3}
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"results\.json is damaged \(.*\)\. Write it again: mtl-nlp evaluate\."):
        read_results(path)
    assert training_in(path) is None
