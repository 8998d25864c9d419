"""The reference scores of `mixture.headroom`, and the plan of a run that follows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.headroom import headroom_of
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare
from mtl_nlp.transfer.content import content_key


def comparison(path: Path, **tasks: Any) -> str:
    single = {"title": "each task alone"}
    content = {"split": "test", "seeds": [1, 2], "reference": "single", "sides": {"single": single, "joint": single}}
    path.write_text(json.dumps({**content, "tasks": tasks}))
    return str(path)


def scores(metric: str, *values: float | None) -> dict[str, Any]:
    return {"metric": metric, "values": {"single": list(values), "joint": [0.1, 0.1]}}


@pytest.fixture
def two_datasets(quick_recipe) -> dict[str, Any]:
    """The sample recipe with its rows as two datasets, one of them without the topic."""
    sample = quick_recipe["datasets"].pop("sample")
    quick_recipe["datasets"] = {
        "words": {**sample, "labels": {"pos": "upos", "ner": "ner"}},
        "texts": {**sample, "labels": {"topic": "topic"}},
    }
    quick_recipe["training"] |= {"eval_strategy": "epoch"}
    return quick_recipe


@pytest.fixture
def references(tmp_path) -> str:
    ner = {**scores("precision", 0.1, 0.1), "scores": {"f1": {"single": [0.5, None]}}}
    return comparison(
        tmp_path / "c.json", pos=scores("accuracy", 0.8, 0.9), ner=ner, topic=scores("accuracy", 0.5, 0.5)
    )


def with_headroom(recipe: dict[str, Any], headroom: bool | str, **mixture: Any) -> Recipe:
    return Recipe.from_dict({**recipe, "mixture": {"headroom": headroom, **mixture}})


def test_references_are_the_mean_primary_scores_of_single_task_runs(two_datasets, references):
    assert headroom_of(Recipe.from_dict(two_datasets)) is False
    assert headroom_of(with_headroom(two_datasets, True)) is True
    assert headroom_of(with_headroom(two_datasets, references)) == pytest.approx(
        {"pos": 0.85, "ner": 0.5, "topic": 0.5}
    )


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, r"^mixture\.headroom: there is no file .*c\.json\. Name a comparison\.json"),
        ({}, r"^mixture\.headroom: .*c\.json is damaged \(tasks: .*\)"),
        ({"pos": scores("accuracy", 0.5)}, r"^mixture\.headroom: .*no score above 0 \(f1\) .* for the task 'ner'"),
        ({"pos": scores("accuracy", None)}, r"^mixture\.headroom: .*no score above 0 \(accuracy\) .* task 'pos'"),
        ({"pos": scores("accuracy", -0.1, 0.0)}, r"^mixture\.headroom: .*no score above 0 \(accuracy\) .* task 'pos'"),
        ({"pos": {"metric": "accuracy", "values": {"joint": [1.0]}}}, r"^mixture\.headroom: .*for the task 'pos'"),
    ],
)
def test_comparison_without_scores_is_refused_in_one_line(two_datasets, tmp_path, tasks, message):
    path = str(tmp_path / "c.json") if tasks is None else comparison(tmp_path / "c.json", **tasks)
    with pytest.raises(RecipeError, match=message):
        prepare(with_headroom(two_datasets, path))


def test_path_is_relative_to_the_recipe_and_its_place_does_not_change_the_key(two_datasets, references, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "other.json"
    copy.write_text(Path(references).read_text())
    here = Recipe.from_dict({**two_datasets, "mixture": {"headroom": "elsewhere/other.json"}}, tmp_path)
    assert here.mixture.headroom == str(copy)
    digests = {name: {"train": "a"} for name in two_datasets["datasets"]}
    keys = {content_key(with_headroom(two_datasets, path), digests, "e") for path in (references, str(copy))}
    assert len(keys) == 1
    assert content_key(with_headroom(two_datasets, True), digests, "e") not in keys
    comparison(copy, **json.loads(copy.read_text())["tasks"] | {"pos": scores("accuracy", 0.7)})
    assert content_key(with_headroom(two_datasets, str(copy)), digests, "e") not in keys


def test_plan_says_what_the_probabilities_follow(two_datasets, references):
    for headroom, text in ((True, "the best scores so far"), (references, "pos 0.85, ner 0.5, topic 0.5")):
        run = prepare(with_headroom(two_datasets, headroom))
        plan = describe_plan(run, training_arguments(run.recipe))
        assert "headroom: the probabilities above are those of the first epoch." in plan
        assert text in plan
    run = prepare(Recipe.from_dict(two_datasets))
    assert "headroom" not in describe_plan(run, training_arguments(run.recipe))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"eval_strategy": "no"}, r"^mixture\.headroom: `headroom` needs an evaluation in each epoch"),
        ({"max_tokens_per_batch": 200}, r"^training: `max_tokens_per_batch` cannot be combined with `headroom`"),
    ],
)
def test_training_that_cannot_follow_the_headroom_is_refused(two_datasets, training, message):
    two_datasets["training"] |= training
    run = prepare(with_headroom(two_datasets, True))
    with pytest.raises(RecipeError, match=message):
        describe_plan(run, training_arguments(run.recipe))
