"""The commands to start with: `init`, which drafts a recipe, and `schema`, which describes the keys of recipes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtl_nlp.cli.options import add_command
from mtl_nlp.errors import CommandError, writing_to
from mtl_nlp.messages import conceal, did_you_mean, json_text


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    parser = add_command(
        commands,
        init,
        "write a recipe for data files",
        "mtl-nlp init tickets.csv --output tickets.yaml\n  mtl-nlp init recipes/sample_corpus --no-plan",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a table (.csv, .tsv, .jsonl, .parquet), a treebank (.conllu), words in columns, or a folder of such "
        "files; names with train, dev, valid or test say the splits",
    )
    parser.add_argument("--output", default="recipe.yaml", metavar="FILE", help="the recipe (default: recipe.yaml)")
    parser.add_argument("--encoder", help="a Hub id or folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing recipe")
    parser.add_argument("--no-plan", action="store_true", help="do not load the data and show the plan")

    parser = add_command(
        commands, schema, "describe all keys of recipes", "mtl-nlp schema --section tasks\n  mtl-nlp schema > s.json"
    )
    parser.add_argument("--section", metavar="KEY", help="only one section, such as tasks, datasets or training")


def init(options: argparse.Namespace) -> None:
    """Write a recipe for data files, in which a comment explains each guess, and show its plan."""
    from mtl_nlp.run.draft import DEFAULT_ENCODER, draft_recipe

    output = Path(options.output)
    if output.exists() and not (options.overwrite and output.is_file()):
        raise CommandError(f"--output {options.output}: exists already. Choose a different file, or --overwrite.")
    if not output.parent.is_dir():
        raise CommandError(f"--output {options.output}: should be a file in an existing folder.")
    text = draft_recipe(options.files, output, options.encoder or DEFAULT_ENCODER)
    with writing_to(output, "--output"):
        output.write_text(text, encoding="utf-8")
    print(conceal(f"The recipe is in {options.output}. Check its comments, then: mtl-nlp train {options.output}"))
    if not options.no_plan:
        print("", flush=True)
        from mtl_nlp.cli.training import print_plan
        from mtl_nlp.recipe.schema import Recipe

        print_plan(Recipe.load(options.output), tries_model=True)


def schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of recipes: every key with its meaning, its type and its default."""
    from mtl_nlp.run.json_schema import recipe_schema, with_definitions

    content = recipe_schema()
    if options.section is not None:
        sections = content["properties"]
        if options.section not in sections:
            raise CommandError(
                f"--section {options.section}: no such section. {did_you_mean(options.section, sections)}"
            )
        content = with_definitions(sections[options.section], content["$defs"])
    print(json_text(content, indent=2))
