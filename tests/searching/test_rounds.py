"""The rounds of a search on a tiny encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp import Recipe, search
from mtl_nlp.searching import rounds
from mtl_nlp.searching.watching import TooLongError


@pytest.fixture
def short(quick_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe that is searched in seconds: two steps, and one fresh seed."""
    monkeypatch.setattr(rounds, "FRESH_SEEDS", (101,))
    quick_recipe["training"] |= {"max_steps": 2, "learning_rate": 1e-3}
    return quick_recipe


@pytest.mark.slow
def test_a_search_tries_the_recipe_as_shipped_records_failures_and_runs_the_best_again(short, tmp_path):
    # The largest rate makes the losses infinite.
    short["search"] = {
        "space": {"training.learning_rate": [1e-3, 1e38], "adapters": [None, {"r": 2}]},
        "sampler": "random",
    }
    lines: list[str] = []
    result = search(Recipe.from_dict(short), trials=5, report=lines.append)
    trials = result.content["trials"]
    assert [each["number"] for each in trials] == [0, 1, 2, 3, 4]
    assert trials[0]["shipped"]
    assert trials[0]["settings"] == {"training.learning_rate": 1e-3, "adapters": None}
    failed = [each for each in trials if each["state"] == "failed"]
    assert failed
    assert all(each["settings"]["training.learning_rate"] == 1e38 and "diverged" in each["reason"] for each in failed)
    again = {each["number"]: each["again"] for each in trials if each["again"]}
    assert 0 in again
    assert all([*seeds] == ["101"] for seeds in again.values())
    best = Recipe.load(result.best)
    assert best.output_dir == str(result.folder / "best")
    assert any(line.startswith("[1/5] trial 0: mtl_score") and line.endswith("as shipped") for line in lines)
    folders = sorted((result.folder / "trials").iterdir())
    assert (folders[0] / "model.safetensors").is_file()
    assert json.loads((folders[0] / "results.json").read_text())["split"] == "validation"
    # A second call with the same number of trials trains nothing.
    lines.clear()
    same = search(Recipe.from_dict(short), trials=5, report=lines.append)
    assert same.content == result.content
    assert not any("trial" in line for line in lines if line.startswith("["))


@pytest.mark.slow
def test_objectives_have_a_front_and_rows_are_a_fidelity(short):
    short["search"] = {"space": {"adapters": [None, {"r": 2}]}, "objective": ["mtl_score", "passes"]}
    content = search(Recipe.from_dict(short), trials=2).content
    assert content["directions"] == ["maximize", "minimize"]
    assert content["front"]
    short["output_dir"] += "-rows"
    short["search"] = {"space": {"loss.weights.ner": [0.5, 3.0]}, "fidelity": "rows", "pruner": "hyperband"}
    content = search(Recipe.from_dict(short), trials=1).content
    assert [*content["trials"][0]["steps"]] == ["1", "2"]


@pytest.mark.slow
def test_tasks_alone_are_searched_and_become_the_baselines(short):
    short["tasks"].pop("ner")
    short["datasets"]["sample"]["labels"].pop("ner")
    short["search"] = {"space": {"training.learning_rate": [1e-3, 1e-2]}, "objective": "delta_m"}
    result = search(Recipe.from_dict(short), trials=1, baselines=True)
    assert [*result.content["single"]] == ["pos", "topic"]
    assert result.content["reference"] == {
        task: each["best"]["mean"] for task, each in result.content["single"].items()
    }
    best = Recipe.load(result.best)
    assert best.baselines.tasks["pos"].training == {"learning_rate": 1e-3}
    assert (result.folder / "single" / "pos" / "trials" / "0" / "results.json").is_file()


@pytest.mark.slow
def test_a_budget_too_small_for_one_trial_is_refused_with_an_estimate(short):
    short["training"]["max_steps"] = 100_000
    with pytest.raises(
        TooLongError, match=r"--budget: one trial takes about .* (min|h), and the time for trials is 30 s"
    ):
        search(Recipe.from_dict(short), budget="30s")
    assert not (Path(f"{short['output_dir']}-search") / "best.yaml").exists()
