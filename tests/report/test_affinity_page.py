from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from mtl_nlp.report.affinity_page import describe_measure, effects_table, groupings_table, write_affinity_page
from mtl_nlp.transfer.affinity_files import Affinity


def effect(value: float | None, margin: float = 0.001) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "word": "unclear"}
    word = "helps" if value > margin else "hurts" if value < -margin else "unclear"
    return {"value": value, "low": value - margin, "high": value + margin, "word": word}


GROUPS = [{"tasks": ["upos", "coarse"], "serves": ["upos", "coarse"]}, {"tasks": ["x<y"], "serves": ["x<y"]}]
CONTENT: dict[str, Any] = {
    "method": "look-ahead",
    "models": 3,
    "tasks": ["upos", "coarse", "x<y"],
    "measured": {"steps": 100, "every": 5, "wanted_steps": 100},
    "effects": {
        "upos": {"coarse": effect(0.02), "x<y": effect(-0.0005)},
        "coarse": {"upos": effect(0.01), "x<y": effect(None)},
        "x<y": {"upos": effect(-0.01), "coarse": effect(0.0)},
    },
    "cosines": [
        {"tasks": ["upos", "coarse"], "mean": 0.5, "low": 0.4, "high": 0.6},
        {"tasks": ["upos", "x<y"], "mean": -0.01, "low": -0.1, "high": 0.1},
        {"tasks": ["coarse", "x<y"], "mean": None, "low": None, "high": None},
    ],
    "groupings": [
        {
            "models": 2,
            "gain": 0.01,
            "answering_passes": 2,
            "training": 1.0,
            "groups": GROUPS,
            "chosen": True,
        }
    ],
    "groups": GROUPS,
}


def test_the_tables_have_effects_with_their_uncertainty_and_groups_with_their_costs():
    lines = effects_table(CONTENT).splitlines()
    assert lines[0].split() == ["helps", "→", "upos", "coarse", "x<y"]
    assert "+2.00 ± 0.10 helps" in lines[2]
    assert "−0.05 ± 0.10" in lines[2]
    assert "not measured" in lines[3]
    assert "−1.00 ± 0.10 hurts" in lines[4]
    assert re.search(r"2 +\+1\.00 +2 +1\.00 × joint +upos, coarse \| x<y +proposed", groupings_table(CONTENT))
    assert "100 steps of one joint training with a measurement every 5 steps" in describe_measure(CONTENT)


def test_pairs_are_in_points_of_each_metric():
    content = copy.deepcopy(CONTENT) | {
        "method": "pairwise",
        "measured": {"share": 0.1, "seeds": [1, 2, 3], "runs": 18},
        "metrics": {"upos": "accuracy", "coarse": "accuracy", "x<y": "pearson"},
    }
    del content["cosines"]
    assert "+2.00 ± 0.10 helps" in effects_table(content)
    assert "−0.0005 ± 0.0010" in effects_table(content)
    assert "for 10.0% of the recipe's training. The intervals cover the chance of 3 seeds" in describe_measure(content)
    assert "predicted gain (score)" in groupings_table(content)


@pytest.mark.parametrize("has_cosines", [True, False])
def test_the_page_has_heat_maps_and_no_script(tmp_path, has_cosines):
    content = CONTENT if has_cosines else {**CONTENT, "cosines": []}
    text = write_affinity_page(Affinity(tmp_path, content)).read_text()
    assert text.count("<svg") == 1 + has_cosines
    assert "One encoder for upos, coarse." in text
    assert "An encoder of its own for x&lt;y." in text
    assert "<script" not in text
    assert str(tmp_path) not in text
