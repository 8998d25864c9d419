from __future__ import annotations

import json

import pytest
from datasets import Dataset

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import results
from mtl_nlp.run_folder import read_results, training_in, write_results

EVALUATION = Evaluation({"pos": {"accuracy": 0.9}, "ner": {"f1": 0.7, "precision": 0.6, "recall": 0.8}}, 0.8)


@pytest.fixture
def content() -> dict:
    windows = Dataset.from_dict({"row": [0]})
    encoded = EncodedDataset("ewt/test", windows, {"pos": windows["row"]}, 0, 0, "0f1e")
    return results("test", EVALUATION, {"ewt": encoded}, "abc")


def test_run_files_round_trip(content, tmp_path):
    content["tasks"] = {"größe": {"mse": 1.5}}
    write_results(tmp_path / "results.json", content)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "größe" in text
    assert text.endswith("}\n")


def test_damaged_results_are_named_and_can_be_rewritten(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path) == {}
    assert training_in(path) is None
    write_results(path, {"training": {"steps": 3}})
    assert training_in(path) == {"steps": 3}
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"results\.json is damaged \(.*\)\. Write it again: mtl-nlp evaluate\."):
        read_results(path)
    assert training_in(path) is None


def test_scores_that_are_not_defined_are_written_as_null(content, tmp_path):
    content["tasks"], content["mtl_score"] = {"pos": {"pearson": float("nan"), "mse": float("inf")}}, float("nan")
    write_results(tmp_path / "results.json", content)
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert found["tasks"] == {"pos": {"pearson": None, "mse": None}}
    assert found["mtl_score"] is None
