from __future__ import annotations

import pytest
from command_line import fails, write
from plain_recipes import PLAIN, changed

from mtl_nlp import Recipe
from mtl_nlp.cli.main import main
from mtl_nlp.searching import rounds


def test_what_cannot_be_searched_is_one_line(tmp_path, capsys):
    assert "nowhere.yaml cannot be read" in fails(capsys, "search", "nowhere.yaml", "--trials", "2")
    recipe = write(tmp_path / "recipe.yaml", PLAIN)
    assert "name a budget: --trials 30, or --budget 40m" in fails(capsys, "search", recipe)
    assert "--budget: should be a time" in fails(capsys, "search", recipe, "--budget", "soon")
    wrong = write(tmp_path / "wrong.yaml", changed("search.objective", "po"))
    assert "search.objective: no such objective 'po'. Did you mean 'pos'?" in fails(
        capsys, "search", wrong, "--trials", "2"
    )
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    arguments = ["search", recipe, "--trials", "2", "--output", str(tmp_path / "used")]
    assert "do not belong to a search, such as notes.txt" in fails(capsys, *arguments)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_prints_three_sentences_and_compares_what_it_found(tmp_path, capsys, quick_recipe, monkeypatch):
    monkeypatch.setattr(rounds, "FRESH_SEEDS", (101,))
    quick_recipe["training"] |= {"max_steps": 2, "learning_rate": 1e-3}
    quick_recipe["tasks"].pop("ner")
    quick_recipe["datasets"]["sample"]["labels"].pop("ner")
    quick_recipe["search"] = {"space": {"training.learning_rate": [1e-3, 3e-3]}}
    recipe = write(tmp_path / "joint.yaml", quick_recipe)
    arguments = ["search", recipe, "--trials", "2", "--baselines", "--then", "compare", "--seeds", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "run-search"
    for text in ("Keys that mattered:", "Keys that did not matter:", "Left to gain:", f"Next: mtl-nlp train {folder}"):
        assert text in printed
    assert "best - single" in (folder / "compare" / "comparison.json").read_text()
    assert (folder / "search.html").is_file()
    assert Recipe.load(folder / "best.yaml").baselines.tasks.keys() == {"pos", "topic"}
    refused = fails(capsys, "search", recipe, "--trials", "2", "--set", "training.max_steps=3")
    assert "holds the search of a different recipe" in refused
