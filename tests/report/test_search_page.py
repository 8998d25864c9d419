from __future__ import annotations

import re

from searches import content

from mtl_nlp.report.search_page import write_search_page
from mtl_nlp.searching.result import write_search
from mtl_nlp.searching.sentences import sentences


def test_the_page_has_the_sentences_the_plots_and_the_reasons_and_loads_nothing(tmp_path):
    whole = content(single={"pos": content()})
    write_search(tmp_path, whole | {"sentences": sentences(whole)})
    (tmp_path / "best.yaml").write_text("# Found by: x\n\nencoder: e\n")
    page = write_search_page(tmp_path).read_text()
    for text in (*sentences(whole), "14 trials (12 complete, 1 ended early, 1 failed)", "encoder: e", "pos alone"):
        assert text.replace("'", "&#39;") in page
    assert "Training has diverged: &lt;b&gt;" in page
    assert page.count("<svg") >= 2 * (3 + 4)
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert len(set(re.findall(r' id="([^"]+)"', page))) == len(re.findall(r' id="([^"]+)"', page))


def test_a_search_of_two_objectives_shows_its_front(tmp_path):
    whole = content(objectives=["mtl_score", "passes"], directions=["maximize", "minimize"], front=[3, 11])
    for each in whole["trials"]:
        each["values"] = None if each["values"] is None else [*each["values"], 1.0 + each["number"] % 2]
    write_search(tmp_path, whole | {"sentences": sentences(whole), "importances": {}})
    page = write_search_page(tmp_path).read_text()
    assert "Trials that no other trial beats" in page
    assert "The front has the trials 3, 11." in page


def test_a_search_without_complete_trials_has_a_page(tmp_path):
    failed = [each for each in content()["trials"] if each["state"] == "failed"]
    whole = content(trials=failed, best=None, importances={})
    write_search(tmp_path, whole | {"sentences": sentences(whole)})
    assert "No trial is complete." in write_search_page(tmp_path).read_text()
