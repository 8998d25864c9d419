from __future__ import annotations

from pathlib import Path

import pytest
from searches import content, entry

from mtl_nlp import Recipe
from mtl_nlp.errors import DataError
from mtl_nlp.searching.result import SearchResult, choose_best, read_search, write_best, write_search


def test_the_mean_with_fresh_seeds_decides_and_the_shrinkage_is_that_of_the_score():
    lucky = entry(1, 0.9, again={"101": 0.6, "102": 0.6})
    steady = entry(2, 0.8, again={"101": 0.7, "102": 0.8})
    shipped = entry(0, 0.5, again={"101": 0.5, "102": 0.5})
    best = choose_best([shipped, lucky, steady, entry(3, 0.95, again={"101": 0.99})], is_minimized=False)
    assert best == {
        "number": 2,
        "value": 0.8,
        "fresh": {"101": 0.7, "102": 0.8},
        "mean": pytest.approx(0.75),
        "shrinkage": pytest.approx(0.05),
        "first": 3,
        "first_shrinkage": pytest.approx(-0.04),
        "shipped": 0.5,
    }


def test_without_fresh_seeds_the_search_decides_and_without_complete_trials_nothing():
    best = choose_best([entry(0, 3.0), entry(1, 2.0)], is_minimized=True)
    assert (best["number"], best["mean"], best["shipped"]) == (1, 2.0, 3.0)
    assert choose_best([entry(0, None, "failed")], is_minimized=False) is None


def test_the_best_recipe_is_valid_and_has_the_settings_of_the_tasks_alone(tmp_path, quick_recipe):
    data = quick_recipe | {
        "search": {"space": {"training.learning_rate": [1e-5, 1e-4]}},
        "baselines": {"training": {"seed": 3}, "tasks": {"pos": {"training": {"warmup_steps": 2}}}},
    }
    alone = {"pos": {"learning_rate": 1e-4, "head_learning_rate": None}}
    values = {"training.learning_rate": 3e-4, "loss.weights.ner": 0.5}
    path = write_best(tmp_path, Recipe.from_dict(data), values, ["Found by: x\ny", "a score: 0.5"], alone)
    assert path.read_text().startswith("# Found by: x y\n# a score: 0.5\n\n")
    best = Recipe.load(path)
    assert best.training == {**quick_recipe["training"], "learning_rate": 3e-4}
    assert best.loss.weights == {"ner": 0.5}
    assert best.baseline_training("pos")["learning_rate"] == 1e-4
    assert best.baselines.tasks["pos"].training == {"warmup_steps": 2, **alone["pos"]}
    assert not best.search.space
    assert best.output_dir == str(tmp_path / "best")


def test_the_result_is_a_file_and_a_table(tmp_path: Path):
    write_search(tmp_path, content(sentences=["One.", "Two.", "Three."]))
    result = SearchResult(tmp_path, read_search(tmp_path))
    table = result.to_pandas()
    assert len(table) == 14
    assert table["mtl_score"].max() == pytest.approx(0.61)
    assert table["reason"][13].startswith("Training has diverged")
    assert repr(result).endswith("One.\nTwo.\nThree.")
    for text in ("{", "[]"):
        (tmp_path / "search.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            read_search(tmp_path)
