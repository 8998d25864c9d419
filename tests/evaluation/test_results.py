from __future__ import annotations

import subprocess
from importlib.metadata import version

import pytest
from datasets import Dataset

import mtl_nlp
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import results

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


def test_commit_is_that_of_the_working_folder_or_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results("test", EVALUATION, {}, "abc")["provenance"]["commit"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert results("test", EVALUATION, {}, "abc")["provenance"]["commit"] == head
