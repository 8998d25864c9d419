from __future__ import annotations

import pytest
from peft import LoraConfig

from mtl_nlp.hub.loading import load_model
from mtl_nlp.run.prepare import Run
from mtl_nlp.transfer.speed import answering_passes, milliseconds_per_1000_texts, rows_per_second


def test_a_few_steps_of_training_are_timed_and_nothing_is_kept(run: Run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert rows_per_second(run) > 10
    assert sorted(tmp_path.rglob("*")) == before
    assert run.recipe.training["max_steps"] == 4


@pytest.mark.slow
def test_two_models_take_longer_than_one(saved):
    texts = [{"tokens": ["ada", "lives", "in", "paris"]}, {"text": "the quick brown fox"}] * 20
    times = milliseconds_per_1000_texts({"one": [saved], "three": [saved, saved, saved]}, texts)
    assert 1.5 < times["three"] / times["one"] < 6


def test_a_text_is_read_once_per_adapter_and_once_for_the_other_tasks(saved):
    model = load_model(str(saved))
    assert answering_passes(model.config, model.tasks) == 1
    model.add_adapter(LoraConfig(r=2))
    assert answering_passes(model.config, model.tasks) == 1
    model.add_adapter(LoraConfig(r=2), "pos")
    assert answering_passes(model.config, model.tasks) == 2
    for task in ("ner", "topic"):
        model.add_adapter(LoraConfig(r=2), task)
    assert answering_passes(model.config, model.tasks) == 3
