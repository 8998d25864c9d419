from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import BaseModel

from mtl_nlp.recipe.resume import OnResume, annotation_of, meaning_in_schema, section_of
from mtl_nlp.recipe.schema import Recipe


def fields_of(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, OnResume | None, bool]]:
    """Yield (path, annotation, whether the field is a section) for every field of a schema and its sections."""
    for name, field in schema.model_fields.items():
        section = section_of(field)
        yield prefix + name, annotation_of(field), section is not None
        if section is not None:
            yield from fields_of(section, f"{prefix}{name}.")


FIELDS = list(fields_of(Recipe))


@pytest.mark.parametrize(("path", "annotation", "is_section"), FIELDS, ids=[path for path, _, _ in FIELDS])
def test_every_recipe_field_states_the_effect_of_a_change_on_a_resumed_run(path, annotation, is_section):
    assert is_section or annotation is not None, f"annotate {path} with an OnResume"


def test_the_fields_of_all_sections_are_found():
    paths = {path for path, _, _ in FIELDS}
    assert paths >= {"encoder", "datasets.path", "mixture.temperature", "loss.weights", "adapters.r", "card.license"}


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("encoder", OnResume.KEPT),
        ("output_dir", OnResume.IRRELEVANT),
        ("tasks.ner.scheme", OnResume.COMPARED),
        ("datasets.ewt.path", OnResume.REORDERS),
        ("datasets.ewt.data_files.train", OnResume.REORDERS),
        ("datasets.ewt.name", OnResume.REORDERS),
        ("datasets.tasks.path", OnResume.REORDERS),
        ("loss.weights.ner", OnResume.TAKES_EFFECT),
        ("adapters.r", OnResume.COMPARED),
        ("adapters.pull", OnResume.TAKES_EFFECT),
        ("adapters.train_encoder", OnResume.REFUSED),
        ("training.any", OnResume.TAKES_EFFECT),
        ("datasets.ewt.max_rows.train", OnResume.REORDERS),
        ("card.examples", OnResume.TAKES_EFFECT),
        ("baselines.training.learning_rate", OnResume.IRRELEVANT),
        ("baselines.tasks.ner.training.learning_rate", OnResume.IRRELEVANT),
    ],
)
def test_a_key_has_the_meaning_of_the_deepest_field_on_its_path(key, meaning):
    assert meaning_in_schema(key, Recipe) is meaning


def test_key_outside_the_schema_is_an_error():
    with pytest.raises(KeyError, match="encodr"):
        meaning_in_schema("encodr", Recipe)


def test_name_of_a_section_in_a_dict_is_not_read_as_a_field():
    class Inner(BaseModel):
        path: Annotated[str, OnResume.KEPT]
        size: Annotated[int, OnResume.REFUSED]

    class Outer(BaseModel):
        parts: dict[str, Inner]

    assert meaning_in_schema("parts.path.size", Outer) is OnResume.REFUSED
