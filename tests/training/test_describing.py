from __future__ import annotations

import pytest

from mtl_nlp.balancing.uncertainty import Uncertainty


@pytest.mark.parametrize("is_learned", [False, True])
def test_description_names_a_weighting_that_is_not_static(trainer_of, disjoint, is_learned):
    settings = {"max_steps": 2}
    trainer = trainer_of(disjoint, **settings)
    if is_learned:
        trainer = trainer_of(disjoint, loss_weighting=Uncertainty(trainer.tasks), **settings)
    trainer.train()
    described = trainer.describe_training()
    assert described.get("weighting") == ("uncertainty" if is_learned else None)
    assert described.get("weights") == (None if is_learned else dict.fromkeys(trainer.tasks, 1.0))
    assert (described["steps"], described["processes"]) == (2, 1)
    assert {name: each["rows"] for name, each in described["mixture"].items()} == {"words": 16, "texts": 24}
    assert sum(each["drawn"] for each in described["mixture"].values()) == described["rows"] == 16
    assert sum(each["probability"] for each in described["mixture"].values()) == pytest.approx(1.0)
    assert not {"frozen", "skipped"} & described.keys()


def test_description_has_the_tasks_that_freezing_and_skipping_concern(trainer_of, disjoint):
    settings = {"freeze_patience": 1, "on_nonfinite": "skip", "eval_strategy": "epoch"}
    trainer = trainer_of(disjoint, disjoint, max_steps=2, **settings)
    trainer.train()
    described = trainer.describe_training()
    assert described["frozen"] == {}
    assert described["skipped"] == {}
