"""The section `distill` of a recipe."""

from __future__ import annotations

import pytest
from plain_recipes import changed

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({}, r"^distill\.teachers: this key is missing"),
        ({"teachers": {}}, r"^distill\.teachers: .*at least 1"),
        ({"teachers": {"gnre": "a"}}, r"^distill\.teachers\.gnre: no such task\. Did you mean 'genre'\?"),
        ({"teachers": 3}, r"^distill\.teachers: "),
        ({"teachers": "a", "temperature": 2}, r"^distill\.temperature: unknown key"),
    ],
)
def test_invalid_section_is_refused_in_one_line(distill, message):
    with pytest.raises(RecipeError, match=message) as found:
        Recipe.from_dict(changed("distill", distill))
    assert "\n" not in str(found.value)


def test_streamed_rows_cannot_be_taught():
    data = changed("distill", {"teachers": {"pos": "a"}})
    data["datasets"]["ewt"]["streaming"] = True
    with pytest.raises(RecipeError, match=r"^distill\.teachers: datasets\.ewt is streamed, and the teacher of 'pos'"):
        Recipe.from_dict(data)


def test_folders_are_relative_to_the_recipe_and_are_not_published(tmp_path):
    one = Recipe.from_dict(changed("distill", {"teachers": "runs/c"}), tmp_path)
    several = Recipe.from_dict(changed("distill", {"teachers": {"pos": "../pos"}}), tmp_path / "recipes")
    assert one.distill.teachers == str(tmp_path / "runs" / "c")
    assert several.distill.teachers == {"pos": str(tmp_path / "pos")}
    assert relative_paths(one.as_written())["distill"] == {"teachers": "./c"}
    assert relative_paths(several.as_written())["distill"] == {"teachers": {"pos": "./pos"}}
    assert one.sha256() == Recipe.from_dict(changed("distill", {"teachers": "/elsewhere/c"})).sha256()
    assert one.distill.of(one.tasks) == ["pos", "genre"]
    assert several.distill.of(several.tasks) == ["pos"]
