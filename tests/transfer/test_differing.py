from __future__ import annotations

from mtl_nlp.transfer.differing import describe_differences, name_of_model

FIRST = {"encoder": "e", "datasets": {"d": {"path": "json"}}, "training": {"learning_rate": 1e-4}, "tasks": {"a": {}}}


def test_each_setting_that_differs_is_named():
    other = {
        **FIRST,
        "datasets": {"d": {"path": "csv"}, "more": {}},
        "training": {"learning_rate": "${RATE}", "seed": 1},
        "adapters": {"r": 8},
    }
    assert describe_differences([("joint", FIRST), ("same", FIRST), ("other", other)]) == [
        "other differs from joint: trained on more too, training.learning_rate 0.0001 → ${RATE}, training.seed not set "
        "→ 1, adapters.r not set → 8"
    ]
    assert describe_differences([]) == []


def test_a_model_of_several_is_named_by_its_task():
    assert name_of_model("single", ["ner"], 3) == "single ner"
    assert name_of_model("joint", ["pos", "ner"], 1) == "joint"
