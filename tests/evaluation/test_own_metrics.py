"""The registration of metrics."""

from __future__ import annotations

import pytest

from mtl_nlp import register_metric
from mtl_nlp.evaluation.metrics import compute
from mtl_nlp.evaluation.own_metrics import OWN_METRICS


def test_a_registered_metric_scores_by_its_name_and_keeps_its_name_to_itself(monkeypatch):
    for name in ("longest", "accuracy"):
        monkeypatch.setitem(OWN_METRICS, name, max)  # removes the metric after the test
        del OWN_METRICS[name]

    @register_metric("longest")
    def longest(predictions, references):
        return {"longest": max(map(len, predictions)), "equal": predictions == references}

    assert longest(["a"], ["a"])["longest"] == 1
    assert compute("longest", ["news", "sport"], ["news", "news"]) == {"longest": 5.0, "equal": 0.0}
    with pytest.raises(ValueError, match=r"^The name of a metric should be unique\. Found 'longest', which belongs to"):
        register_metric("longest")(max)
    with pytest.raises(ValueError, match=r"^The name of a metric should consist of letters, digits and `_`\. Found '1"):
        register_metric("1st")
    register_metric("accuracy")(longest)
    with pytest.raises(ValueError, match=r"^The metric 'accuracy' of .*longest has the name of a metric of mtl_nlp\."):
        compute("accuracy", [["a"]], [["a"]])
    with pytest.raises(ValueError, match=r"^No metric 'shortest' is registered\. The metrics are .*, longest"):
        compute("shortest", [["a"]], [["a"]])
