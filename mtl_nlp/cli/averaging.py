"""The command that averages the weights of trained models: `average`."""

from __future__ import annotations

import argparse
from typing import Any

from mtl_nlp.cli.options import add_command, add_overrides, new_folder, quiet_libraries
from mtl_nlp.errors import CommandError
from mtl_nlp.messages import conceal


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        average,
        "average the weights of several trained models",
        "mtl-nlp average runs/seed1 runs/seed2 runs/seed3 runs/average --recipe recipes/quickstart.yaml\n"
        "  mtl-nlp average runs/quickstart/checkpoint-100 runs/quickstart/checkpoint-200 runs/average",
    )
    parser.add_argument(
        "models", nargs="+", metavar="RUN", help="folder of a run or checkpoint; one run stands for its checkpoints"
    )
    parser.add_argument("output", metavar="OUT", help="the folder to write")
    parser.add_argument("--recipe", help="score the models and their average on this recipe's validation and test rows")
    add_overrides(parser)


def average(options: argparse.Namespace) -> None:
    """Write a model whose weights are the mean of several models with one configuration (a model soup).

    The models are checkpoints of one run, or runs that differ in their seed. Thresholds are tuned again.
    """
    from mtl_nlp.recipe.schema import Recipe

    if options.set and options.recipe is None:
        raise CommandError("--set: changes a recipe, and no recipe is named. Add --recipe.")
    new_folder(options.output)
    recipe = None
    if options.recipe is not None:
        recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
    quiet_libraries()
    from mtl_nlp.transfer.averaging import average as average_models

    averaged = average_models(options.models, options.output, recipe=recipe)
    for shown in averaged.tables():
        print(f"{shown}\n")
    print(conceal(f"The average of {averaged.count} models is in {options.output}."))
