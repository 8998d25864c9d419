"""The average of the weights of several models, with its scores and its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from toys import build_tokenizer

import mtl_nlp
from mtl_nlp import MultiLabelClassification, MultitaskModel, Regression, TextClassification
from mtl_nlp.errors import CommandError, ModelError, MtlNlpError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.modeling.saving_multitask import check_weights
from mtl_nlp.transfer.averaging import average


@pytest.fixture(scope="module")
def moved(trained, tmp_path_factory) -> Path:
    """A copy of the trained model with different weights of the same configuration."""
    folder = shutil.copytree(trained / "run", tmp_path_factory.mktemp("moved") / "other")
    model = load_model(str(folder))
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(str(folder)).state_dict()


def test_average_is_scored_beside_its_models_and_is_a_complete_run(trained, moved, tmp_path):
    averaged = mtl_nlp.average([trained / "run", moved], tmp_path / "soup", recipe=trained / "recipe.yaml")
    one, two, mean = (weights(folder) for folder in (trained / "run", moved, tmp_path / "soup"))
    assert all(torch.allclose(mean[name], (one[name] + two[name]) / 2, atol=1e-6) for name in mean)
    assert {split: list(of_models) for split, of_models in averaged.scores.items()} == {
        split: ["run", "other", "average"] for split in ("validation", "test")
    }
    # The scores of a model are those of its own evaluation.
    own = json.loads((trained / "run" / "results.json").read_text())
    assert averaged.scores["test"]["run"].scores["topic"] == pytest.approx(own["tasks"]["topic"])
    lines = repr(averaged).splitlines()
    assert lines[0] == f"AveragedRun({tmp_path / 'soup'}, 2 models)"
    assert lines[2].split() == ["task", "validation", "score", "run", "other", "mean", "average"]
    scores = [each.scores["pos"]["accuracy"] for each in averaged.scores["validation"].values()]
    shown = [*scores[:2], sum(scores[:2]) / 2, scores[2]]
    assert lines[4].split() == ["pos", "accuracy", *(f"{score:.4f}" for score in shown)]
    # The folder has what a training writes.
    results = json.loads((tmp_path / "soup" / "results.json").read_text())
    assert (results["split"], results["averaged"]) == ("test", 2)
    assert results["tasks"]["pos"] == averaged.scores["test"]["average"].scores["pos"]
    check_weights(tmp_path / "soup")
    assert "output_dir: " + str(tmp_path / "soup") in (tmp_path / "soup" / "recipe.yaml").read_text()
    assert "The weights are the mean of 2 trained models" in (tmp_path / "soup" / "README.md").read_text()
    assert {"config.json", "tokenizer.json", "predictions.jsonl"} <= {p.name for p in (tmp_path / "soup").iterdir()}


def test_average_of_equal_models_is_the_model(trained, tmp_path):
    copy = shutil.copytree(trained / "run", tmp_path / "copy")
    averaged = average([trained / "run", copy, moved_aside(copy)], tmp_path / "soup")
    assert (averaged.count, averaged.scores) == (3, {})
    one, mean = weights(trained / "run"), weights(tmp_path / "soup")
    assert all(torch.equal(one[name], mean[name]) for name in one)
    assert not (tmp_path / "soup" / "results.json").exists()


def moved_aside(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("aside")))


def test_one_run_stands_for_its_complete_checkpoints(trained, moved, tmp_path, monkeypatch):
    run = tmp_path / "run"
    for step, model in ((10, trained / "run"), (20, moved)):
        shutil.copytree(model, run / f"checkpoint-{step}")
    monkeypatch.setattr("mtl_nlp.transfer.averaging.checkpoint_problem", lambda path: None)
    average([run], tmp_path / "one")
    average([run / "checkpoint-10", run / "checkpoint-20"], tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def build(folder: Path, *tasks: mtl_nlp.Task, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny random model with its tokenizer."""
    from toys import build_config

    torch.manual_seed(seed)
    config = mtl_nlp.MultitaskConfig(text_config=build_config("bert"), tasks=list(tasks), max_length=48)
    MultitaskModel(config).to(dtype).save_pretrained(folder)
    build_tokenizer("wordpiece").save_pretrained(folder)
    return folder


def test_precision_is_kept_and_the_mean_is_taken_in_float32(tmp_path):
    topic = TextClassification(name="topic", labels=["a", "b"])
    folders = [build(tmp_path / str(n), topic, seed=n, dtype=torch.bfloat16) for n in range(3)]
    model = average(folders, tmp_path / "soup").model
    found = [load_model(str(folder)).state_dict() for folder in folders]
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            expected = sum(each[name].float() for each in found) / 3
            assert value.dtype == torch.bfloat16
            assert torch.allclose(value.float(), expected, rtol=2**-8, atol=1e-8)


def test_unfit_models_are_refused_in_one_line(trained, moved, tmp_path):
    topic, score = TextClassification(name="topic", labels=["a", "b"]), Regression(name="score", mean=1.0, sd=1.0)
    plain = build(tmp_path / "plain", topic, score)
    others = {
        "tasks.topic.labels": build(tmp_path / "a", TextClassification(name="topic", labels=["b", "a"]), score),
        "tasks.score.mean": build(tmp_path / "b", topic, Regression(name="score", mean=2.0, sd=1.0)),
        "the order of the tasks": build(tmp_path / "c", score, topic),
        "tasks.score": build(tmp_path / "d", topic),
    }

    def refused(*folders: Path | str, kind: type[MtlNlpError] = ModelError) -> str:
        with pytest.raises(kind) as found:
            average(folders, tmp_path / "soup")
        assert "\n" not in str(found.value)
        assert not (tmp_path / "soup").exists()
        return str(found.value)

    for key, other in others.items():
        assert f"{plain} and {other} differ in {key}. Only models with one configuration" in refused(plain, other)
    build_tokenizer("unigram").save_pretrained(build(tmp_path / "e", topic, score))
    assert "differ in the tokenizer" in refused(plain, tmp_path / "e")
    assert "there is no such folder" in refused(plain, tmp_path / "none")
    assert "needs at least two models. Found none" in refused(kind=CommandError)
    found = refused(moved, kind=CommandError)
    assert f"needs at least two models. Found 0 complete checkpoints in {moved}" in found
    assert "given twice" in refused(plain, f"{tmp_path}/./plain", kind=CommandError)
    with pytest.raises(CommandError, match=r"^OUT: .* should be a new or empty folder"):
        average([plain, tmp_path / "a"], plain)


def test_thresholds_are_tuned_again_and_need_validation_rows(tmp_path):
    def tags(**tuned: float) -> MultiLabelClassification:
        return MultiLabelClassification(name="tags", labels=["a", "b"], threshold="tuned", tuned_thresholds=tuned)

    folders = [build(tmp_path / "1", tags(a=0.2, b=0.3)), build(tmp_path / "2", tags(a=0.4, b=0.5), seed=1)]
    with pytest.raises(
        ModelError, match=r"`threshold: tuned` of task 'tags' is tuned on validation rows, again .*--rec"
    ):
        average(folders, tmp_path / "soup")
    rows = [{"text": word, "tags": [tag]} for word in ("dog", "fox") for tag in ("a", "b", "a")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = dict.fromkeys(("train", "validation"), str(tmp_path / "rows.jsonl"))
    recipe = {
        "encoder": "e",
        "output_dir": str(tmp_path / "o"),
        "tasks": {"tags": {"type": "multi-label-classification", "threshold": "tuned"}},
        "datasets": {
            "d": {"path": "json", "data_files": files, "inputs": {"text": "text"}, "labels": {"tags": "tags"}}
        },
    }
    averaged = average(folders, tmp_path / "soup", recipe=recipe)
    assert list(averaged.scores) == ["validation"]
    (task,) = load_model(str(tmp_path / "soup")).config.get_tasks()
    assert task.tuned_thresholds not in ({"a": 0.2, "b": 0.3}, {"a": 0.4, "b": 0.5})
