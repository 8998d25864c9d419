from __future__ import annotations

import optuna
import pytest

from mtl_nlp.searching.describing import importances


def study_of(values: list[float]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for value in values:
        trial = study.ask()
        x, _ = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])
        trial.suggest_categorical("same", ["c"])
        study.tell(trial, x + value)
    return study


def test_the_key_that_decides_the_value_has_the_largest_share():
    found = importances(study_of([0.0] * 20), ["kind", "x", "same", "missing"])
    assert next(iter(found)) == "x"
    assert found["x"] > 0.5
    assert sum(found.values()) == pytest.approx(1.0)
    assert "same" not in found


def test_few_trials_have_no_importances():
    assert importances(study_of([0.0, 1.0]), ["x", "kind"]) == {}
    assert importances(study_of([0.0] * 4), ["same"]) == {}
