"""The command that searches the settings of a recipe: `search`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.cli.options import add_command, add_overrides, positive_integer, quiet_libraries
from mtl_nlp.cli.signals import Interrupted
from mtl_nlp.errors import CommandError, RunError, writing_to
from mtl_nlp.messages import conceal

if TYPE_CHECKING:
    from mtl_nlp.recipe.schema import Recipe


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        search,
        "find better settings for a recipe",
        "mtl-nlp search recipes/quickstart.yaml --trials 30\n"
        "  mtl-nlp search recipes/quickstart.yaml --budget 40m --baselines --then compare",
    )
    parser.add_argument("recipe", help="the recipe, a YAML file; its section `search` names the keys to search")
    parser.add_argument("--trials", type=positive_integer, metavar="N", help="the number of trials")
    parser.add_argument("--budget", metavar="TIME", help="the time in which trials train, such as 90s, 40m or 1.5h")
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="search the training of each task alone too, with the same budget, for a fair comparison",
    )
    parser.add_argument(
        "--then",
        choices=("compare",),
        help="compare the recipe found with the recipe as shipped and with each task alone",
    )
    parser.add_argument(
        "--seeds", type=positive_integer, default=3, metavar="N", help="the seeds of `--then compare` (default: 3)"
    )
    parser.add_argument("--output", metavar="DIR", help="the folder of the search (default: OUTPUT_DIR-search)")
    add_overrides(parser)


def search(options: argparse.Namespace) -> None:
    """Try settings of a recipe on its validation splits, and write the best of them as a recipe, with a report.

    A second call continues. Several calls at once, also on several machines, work on the same search.
    """
    from mtl_nlp.recipe.schema import Recipe

    if options.trials is None and options.budget is None:
        raise CommandError("search: name a budget: --trials 30, or --budget 40m.")
    recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
    folder = Path(f"{recipe.output_dir}-search" if options.output is None else options.output)
    quiet_libraries()
    from mtl_nlp.report.search_page import write_search_page
    from mtl_nlp.searching.finding import search as search_recipe
    from mtl_nlp.searching.result import alone_in

    try:
        result = search_recipe(
            recipe,
            options.trials,
            options.budget,
            folder,
            baselines=options.baselines,
            report=_report,
            name=Path(options.recipe).name,
        )
    except Interrupted as error:
        error.advice = f"Finished trials are in {conceal(str(folder))}. To continue, repeat the command."
        raise
    with writing_to(folder, "--output", RunError), alone_in(folder):
        page = write_search_page(folder)
    print("\n" + "\n".join(result.content["sentences"]))
    print(
        conceal(f"The best recipe is {result.best}, the report {page}. Next: mtl-nlp train {result.best}"), flush=True
    )
    if options.then == "compare":
        _compare(recipe, result.best, options)


def _compare(recipe: Recipe, best: Path, options: argparse.Namespace) -> None:
    """Compare the recipe found with the recipe as shipped and with each task alone."""
    from mtl_nlp.cli.comparing import compare_and_show
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.transfer.sides import RecipeSide

    found = Recipe.load(best, allow_code=options.allow_code)
    sides = [RecipeSide("best", "the recipe found", found, [list(found.tasks)])]
    if found.tasks == recipe.tasks:
        sides.append(RecipeSide("shipped", "the recipe as shipped", recipe, [list(recipe.tasks)]))
    else:
        _report("note: the recipe as shipped is left out of the comparison, since the tasks found have other options")
    compare_and_show([*sides], options.seeds, best.parent / "compare")


def _report(line: str) -> None:
    print(line, flush=True)
