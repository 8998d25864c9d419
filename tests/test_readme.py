"""The agreement of the documents with the files that they describe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.sections import AdapterRecipe, MixtureRecipe
from mtl_nlp.run.arguments import training_arguments

REPOSITORY = Path(__file__).parents[1]
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))


def first_yaml_block(document: str) -> dict:
    block = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / document).read_text(), re.DOTALL)
    return yaml.safe_load(block[1])


def test_the_recipe_shown_in_the_documents_is_the_quickstart_recipe():
    shown = first_yaml_block("concepts/recipe.md")
    real = yaml.safe_load((REPOSITORY / "recipes" / "quickstart.yaml").read_text())
    assert (shown["encoder"], shown["tasks"]) == (real["encoder"], real["tasks"])
    assert shown["training"].items() <= real["training"].items()


def test_the_mixture_shown_in_the_documents_is_valid_and_names_the_defaults(quick_recipe):
    shown = first_yaml_block("concepts/mixture.md")
    recipe = Recipe.from_dict({**quick_recipe, **shown})
    assert training_arguments(recipe).per_device_train_batch_size == 32
    assert {"batching", "length_window"} <= shown["mixture"].keys()
    for key in ("batching", "length_window"):
        assert shown["mixture"][key] == MixtureRecipe.model_fields[key].default


def test_the_adapters_shown_in_the_documents_are_valid_and_name_the_defaults(quick_recipe):
    shown = first_yaml_block("how-to/adapters.md")
    recipe = Recipe.from_dict({**quick_recipe, **shown})
    assert training_arguments(recipe).adapter_learning_rate == 1e-3
    assert set(AdapterRecipe.model_fields) - shown["adapters"].keys() == {"use_rslora", "use_dora"}
    differing = {key for key, value in shown["adapters"].items() if value != AdapterRecipe.model_fields[key].default}
    assert differing == {"target_modules"}


def test_the_first_snippet_ends_by_line_40():
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    fences = [number for number, line in enumerate(lines, start=1) if line.startswith("```")]
    assert lines[fences[2] - 1] == "```python"
    assert fences[3] <= 40


@pytest.mark.parametrize("document", ["README.md", "recipes/README.md", "recipes/sample_corpus/README.md"])
def test_no_placeholder_is_left(document):
    assert not re.search(r"\b[A-Z]{3,}_(?:ROW|OUTPUT)\b|^[A-Z]{5,}$", (REPOSITORY / document).read_text(), re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_states_its_scores(recipe):
    (reached,) = re.findall(r"^# reached: (.*)", recipe.read_text(), re.MULTILINE)
    assert re.search(r"\d\d\.\d", reached)
