"""The command that measures which tasks help which: `affinity`."""

from __future__ import annotations

import argparse
from typing import Any

from mtl_nlp.cli.options import add_command, add_overrides, positive_integer, quiet_libraries
from mtl_nlp.cli.signals import Interrupted
from mtl_nlp.errors import RunError, writing_to
from mtl_nlp.messages import conceal, seconds_of


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        affinity,
        "find out which tasks help which, and group them",
        "mtl-nlp affinity recipes/mixed.yaml\n"
        "  mtl-nlp affinity recipes/mixed.yaml --models 2 --budget 5m\n"
        "  mtl-nlp affinity recipes/mixed.yaml --pairwise --seeds 3 --budget 1h",
    )
    parser.add_argument("recipe", help="the recipe, with at least two tasks")
    parser.add_argument(
        "--pairwise",
        action="store_true",
        help="train each pair of at most 8 tasks for a short time against each task alone, and compare validation "
        "scores: the honest measure",
    )
    parser.add_argument(
        "--models", type=positive_integer, default=3, metavar="M", help="the largest number of encoders (default: 3)"
    )
    parser.add_argument(
        "--steps",
        type=positive_integer,
        metavar="N",
        help="the optimizer steps of the joint training (default: at most 300, and as many as fit into the budget); "
        "with --pairwise, the steps whose passes over the data each training has",
    )
    parser.add_argument(
        "--budget",
        type=duration,
        metavar="TIME",
        help="the longest time, such as 90s, 15m or 2h (default: 15m, and no limit with --steps)",
    )
    parser.add_argument(
        "--seeds", type=positive_integer, default=3, metavar="N", help="the number of seeds of --pairwise (default: 3)"
    )
    parser.add_argument(
        "--jobs", type=positive_integer, default=1, metavar="N", help="train N pairs at once (default: 1)"
    )
    parser.add_argument("--output", metavar="DIR", help="the folder of the result (default: OUTPUT_DIR-affinity)")
    add_overrides(parser)


def duration(text: str) -> float:
    """Return the seconds of a time such as `90s`, `15m` or `2h`.

    Raises:
        argparse.ArgumentTypeError: if the text is not a time above 0.
    """
    seconds = seconds_of(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"should be a time such as 90s, 15m or 2h. Found {text!r}")
    return seconds


def affinity(options: argparse.Namespace) -> None:
    """Measure which tasks of a recipe help which, and propose groups of tasks that share an encoder.

    One short joint training measures by how much a step on each task lowers the losses of the others (look-ahead
    affinity). The output folder gets a page with the matrix, a recipe per group, and groups.yaml, which
    `mtl-nlp compare` takes as a side. The recipe's own training is not run. Test rows are not used.
    """
    quiet_libraries()
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.report.affinity_page import describe_measure, effects_table, groupings_table, write_affinity_page
    from mtl_nlp.run_folder import RECIPE_NAME
    from mtl_nlp.transfer.affinity_files import GROUPS_NAME
    from mtl_nlp.transfer.affinity_measuring import affinity as measure
    from mtl_nlp.transfer.affinity_measuring import describe_proposal

    recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
    try:
        found = measure(
            recipe,
            pairwise=options.pairwise,
            models=options.models,
            steps=options.steps,
            budget=options.budget,
            seeds=options.seeds,
            jobs=options.jobs,
            output=options.output,
            report=_report,
        )
    except Interrupted as error:
        if options.pairwise:
            error.advice = "Finished trainings are kept. To continue, repeat the command."
        raise
    print(f"\n{effects_table(found.content)}\n\n{groupings_table(found.content)}\n")
    print("\n".join([describe_measure(found.content), *describe_proposal(found.content)]))
    with writing_to(found.folder, "--output", RunError):
        print(conceal(f"The page is {write_affinity_page(found)}."))
    sides = f"{found.folder / RECIPE_NAME} {found.folder / GROUPS_NAME}"
    print(conceal(f"Compare the groups with one encoder and a model per task: mtl-nlp compare {sides}"))


def _report(line: str) -> None:
    print(conceal(line), flush=True)
