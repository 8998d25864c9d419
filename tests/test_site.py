"""The documentation as a site: its pages and the links between them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", REPOSITORY / "scripts" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_every_public_name_has_an_entry(site):
    assert {"## plan", "## train", "## compare"} <= set(site.commands_page().splitlines())
    assert "::: mtl_nlp.training.trainer.MultitaskTrainer" in site.python_page()


def test_every_key_of_a_recipe_has_a_row(site):
    page = site.recipe_page(json.loads((REPOSITORY / "recipes" / "schema.json").read_text()))
    for line in ("| `temperature` | `1.0` |", "### `type: regression`", "## datasets.NAME", "| `num_train_epochs` |"):
        assert line in page


@pytest.mark.parametrize(
    ("text", "document", "page", "moved"),
    [
        ("[a](../../recipes/README.md#x)", "docs/how-to/a.md", "how-to/a.md", "[a](../scores.md#x)"),
        ("[a](docs/balancing.md)", "CONTRIBUTING.md", "contributing.md", "[a](balancing.md)"),
        ("[a](../docs/how-to/a.md)", "recipes/README.md", "scores.md", "[a](how-to/a.md)"),
        ("[a](#b) [c](https://d.e/f)", "docs/a.md", "a.md", "[a](#b) [c](https://d.e/f)"),
    ],
)
def test_links_to_documents_outside_of_the_site_lead_to_their_pages(site, text, document, page, moved):
    assert site._moved_links(text, document, page) == moved
