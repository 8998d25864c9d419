from __future__ import annotations

import inspect
import sys
from typing import get_args

import pytest
from toy_splits import TASKS
from toy_weightings import Watching

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.registry import WEIGHTINGS, build_weighting, own_parameters, weighting_name
from mtl_nlp.recipe.loss import Weighting

LEARNED = [name for name in WEIGHTINGS if name != "static"]
WITH_TORCHJD = ["dwa", "random", "imtl-l", "stch"]


def test_recipe_knows_exactly_the_weightings_of_the_registry():
    assert get_args(Weighting) == tuple(WEIGHTINGS)


@pytest.mark.parametrize("name", LEARNED)
def test_weighting_is_built_from_its_name_and_has_it(name):
    weighting = build_weighting(name, TASKS, {}, {})
    assert type(weighting) is WEIGHTINGS[name]
    assert weighting_name(weighting) == name
    assert weighting_name(Watching()) == "Watching"


@pytest.mark.parametrize("name", LEARNED)
def test_documentation_of_a_weighting_has_its_use_its_source_and_its_parameters(name):
    text = inspect.getdoc(WEIGHTINGS[name])
    assert "When to use it:" in text
    assert "Source:" in text
    assert all(f"\n    {parameter}:" in text for parameter in own_parameters(name))


def test_static_weights_are_given_and_others_are_not():
    assert build_weighting("static", TASKS, {"pos": 0.5}, {}).tasks == ["pos"]
    with pytest.raises(ValueError, match=r"^weights: dwa chooses the weights of the tasks\. Leave out `weights`"):
        build_weighting("dwa", TASKS, {"pos": 0.5}, {})


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (
            "gradnorm",
            {"alhpa": 1},
            r"^weighting_kwargs\.alhpa: gradnorm has no such parameter\. Did you mean 'alpha'\?",
        ),
        (
            "static",
            {"alpha": 1},
            r"^weighting_kwargs\.alpha: static has no such parameter\. static has no parameters\.",
        ),
        ("log-classes", {"tasks": 1}, r"^weighting_kwargs\.tasks: log-classes has no such parameter"),
        ("gradnorm", {"alpha": "big"}, r"^weighting_kwargs\.alpha: should be a finite number\. Found 'big'"),
        ("gradnorm", {"alpha": True}, r"^weighting_kwargs\.alpha: should be a finite number\. Found True"),
        ("gradnorm", {"alpha": None}, r"^weighting_kwargs\.alpha: should be a finite number\. Found None"),
        ("gradnorm", {"alpha": [1]}, r"^weighting_kwargs\.alpha: should be a finite number\. Found \[1\]"),
        ("gradnorm", {"alpha": float("nan")}, r"^weighting_kwargs\.alpha: should be a finite number\. Found nan"),
        ("gradnorm", {"alpha": 10**400}, r"^weighting_kwargs\.alpha: should be a finite number\. Found 1000"),
        ("gradnorm", {"alpha": -1.0}, r"^weighting_kwargs: `alpha` should be finite and at least 0\. Found -1\.0"),
        ("equal-start", {"steps": 1.5}, r"^weighting_kwargs\.steps: should be an integer\. Found 1\.5"),
        ("equal-start", {"steps": 0}, r"^weighting_kwargs: `steps` should be at least 1\. Found 0"),
        ("stch", {"mu": 0}, r"^weighting_kwargs: `mu` should be finite and above 0\. Found 0"),
    ],
)
def test_parameter_that_is_not_valid_is_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_weighting(name, TASKS, {}, kwargs)


def test_number_may_be_text_as_yaml_reads_it():
    assert build_weighting("uncertainty", TASKS, {}, {"learning_rate": "1e-3"}).learning_rate == 1e-3
    assert build_weighting("equal-start", TASKS, {}, {"steps": "3"}).steps == 3


@pytest.mark.parametrize("name", LEARNED)
def test_only_methods_that_compare_tasks_refuse_a_single_task(name):
    tasks = {"pos": TASKS["pos"]}
    if issubclass(WEIGHTINGS[name], ComparingWeighting):
        with pytest.raises(
            ValueError, match=rf"^weighting: {name} compares tasks, and there is only 'pos'\. Set `static`"
        ):
            build_weighting(name, tasks, {}, {})
    else:
        build_weighting(name, tasks, {}, {})


@pytest.mark.parametrize("name", LEARNED)
def test_missing_torchjd_is_named_with_its_remedy(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)
    if name in WITH_TORCHJD:
        with pytest.raises(ValueError, match=rf"^weighting: {name} needs torchjd.*pip install 'mtl_nlp\[balancing\]'"):
            build_weighting(name, TASKS, {}, {})
    else:
        build_weighting(name, TASKS, {}, {})
