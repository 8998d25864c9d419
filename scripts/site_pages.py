"""Pages of the documentation that are made from the code and from documents outside of docs/: a hook of mkdocs.

The reference of commands is the `--help` of each command, the reference of Python has the public names with their
docstrings, and the reference of recipes comes from the schema. recipes/README.md, CONTRIBUTING.md and CHANGELOG.md
become pages, and links to these files lead to the pages.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from mtl_nlp.cli.main import _parser

REPOSITORY = Path(__file__).parents[1]

DOCUMENTS = {
    "recipes/README.md": "scores.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""A document outside of docs/ -> its page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for document, page in DOCUMENTS.items():
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved_links(text, document, page)))
    schema = json.loads((REPOSITORY / "recipes" / "schema.json").read_text(encoding="utf-8"))
    files.append(File.generated(config, "reference/recipe.md", content=recipe_page(schema)))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/python.md", content=python_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to documents outside of docs/ to their pages."""
    if page.file.generated_by is not None:
        return markdown
    return _moved_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def _moved_links(text: str, document: str, page: str) -> str:
    """Return a text whose relative links fit its page.

    Args:
        text: the text of a document.
        document: the document's path in the repository.
        page: the path of the document's page below docs/.
    """

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        found = DOCUMENTS.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if found is None:
            return match[0]
        return f"{match[1]}({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"

    return re.sub(r"(\[[^\]\n]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", moved, text)


def recipe_page(schema: Mapping[str, Any]) -> str:
    """Return the page on the keys of recipes, from their JSON schema."""
    parts = ["# Recipe\n", "`mtl-nlp schema` prints these keys as a JSON schema, with the types of all values.\n"]
    parts += ["## Top level\n", _table(schema)]
    named = {
        key: inner
        if isinstance(inner := value.get("additionalProperties"), dict) and {"$ref", "anyOf"} & {*inner}
        else value
        for key, value in schema["properties"].items()
    }
    for key, value in named.items():
        reference = value.get("$ref") or next((each["$ref"] for each in value.get("anyOf", ()) if "$ref" in each), None)
        if reference is None:
            continue
        section = schema["$defs"][reference.rpartition("/")[2]]
        title = f"{key}.NAME" if value is not schema["properties"][key] else key
        parts += [f"## {title}\n", section.get("description", "") + "\n"]
        for kind in section.get("oneOf", [section]):
            parts += [f"### `type: {kind['title']}`\n"] if "oneOf" in section else []
            parts.append(_table(kind))
    return "\n".join(parts)


def _table(section: Mapping[str, Any]) -> str:
    """Return a table of the keys of a section with their defaults and meanings."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, value in section.get("properties", {}).items():
        default = "required" if key in section.get("required", ()) else f"`{json.dumps(value.get('default'))}`"
        cells = (f"`{key}`", "" if key == "type" else default, value.get("description", ""))
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def commands_page() -> str:
    """Return the page on the commands: the help of each."""
    (choices,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help or "" for choice in choices._choices_actions}
    parts = ["# Commands\n", "Each command also runs as a module: `python -m mtl_nlp plan RECIPE`.\n"]
    for name, parser in choices.choices.items():
        text = parser.format_help().rstrip()
        parts.append(f"## {name}\n\n{summaries.get(name, '').capitalize()}.\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def python_page() -> str:
    """Return the page on the public names of the package, whose docstrings mkdocstrings fills in."""
    stub = (REPOSITORY / "mtl_nlp" / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \.([\w.]+) import (\w+) as \2$", stub, re.MULTILINE)
    parts = ["# Python\n", "All names are imported from `mtl_nlp`.\n"]
    parts += [f"::: mtl_nlp.{module}.{name}\n" for module, name in sorted(names, key=lambda each: each[1].lower())]
    return "\n".join(part for part in parts if "__version__" not in part)
