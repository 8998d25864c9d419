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


SCORES = {"split": "test", "tasks": {"pos": {"accuracy": 0.9}}, "mtl_score": 0.9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object"),
        (3, "expected an object"),
        ({**SCORES, "split": 3}, "split: .*string"),
        ({"tasks": {}, "split": "test"}, "`mtl_score` is missing"),
        ({"mtl_score": 0.1}, "`split` is missing"),
        ({**SCORES, "tasks": [1]}, "tasks: .*dictionary"),
        ({**SCORES, "tasks": {"pos": 1}}, r"tasks\.pos: .*dictionary"),
        ({**SCORES, "tasks": {"pos": {"accuracy": "0.9"}}}, r"tasks\.pos\.accuracy: .*number"),
        ({**SCORES, "tasks": {"pos": {"accuracy": True}}}, r"tasks\.pos\.accuracy: .*number"),
        ({**SCORES, "tasks": {"pos": {"accuracy": float("nan")}}}, r"tasks\.pos\.accuracy: .*finite"),
        ({**SCORES, "mtl_score": float("inf")}, "mtl_score: .*finite"),
        ({**SCORES, "mtl_score": [0.9]}, "mtl_score: .*number"),
        ({"training": 3}, "training: .*dictionary"),
        ({"training": {"mixture": [1]}}, r"training\.mixture: .*dictionary"),
        ({"training": {"mixture": {"ewt": 1}}}, r"training\.mixture\.ewt: .*dictionary"),
        ({"training": {"mixture": {"ewt": {"rows": "9", "probability": 1}}}}, r"mixture\.ewt\.rows: .*integer"),
        ({"training": {"mixture": {"ewt": {"rows": 9}}}}, r"mixture\.ewt\.probability: "),
        ({"provenance": "x"}, "provenance: .*dictionary"),
        ({"provenance": {"versions": {"torch": 2}}}, r"provenance\.versions\.torch: .*string"),
        ({"provenance": {"data_fingerprints": ["x"]}}, r"provenance\.data_fingerprints: .*dictionary"),
    ],
)
def test_results_of_a_wrong_form_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"results\.json is damaged \(.*{message}.*\)\. Write it again") as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "\xff", "", "{}{}", "1" * 5000])
def test_results_that_are_no_json_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"results\.json is damaged"):
        read_results(path)


def test_scores_that_are_not_defined_are_written_as_null(content, tmp_path):
    content["tasks"], content["mtl_score"] = {"pos": {"pearson": float("nan"), "mse": float("inf")}}, float("nan")
    write_results(tmp_path / "results.json", content)
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert found["tasks"] == {"pos": {"pearson": None, "mse": None}}
    assert found["mtl_score"] is None


@pytest.mark.parametrize(
    "training",
    [
        {"seconds": "long"},
        {"encoder_passes": 1.5},
        {"best": {"ner": {"score": "f1", "value": None, "step": 3}}},
        {"best": {"ner": {"score": "f1", "value": 0.5}}},
        {"mixture": {"d": {"rows": 1, "probability": 1.0, "drawn": "x"}}},
    ],
)
def test_a_damaged_description_of_the_training_is_refused(tmp_path, training):
    write_results(tmp_path / "results.json", {"training": training})
    with pytest.raises(DataError, match=r"results\.json is damaged \(training\."):
        read_results(tmp_path / "results.json")
