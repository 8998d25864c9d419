"""The command that shows what tasks share: `inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtl_nlp.cli.options import add_command, add_overrides, positive_integer, quiet_libraries, writable_file
from mtl_nlp.errors import writing_to
from mtl_nlp.messages import conceal
from mtl_nlp.recipe.sections import SPLITS


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        inspect,
        "show what the tasks of a trained model share, and what is a task's own",
        "mtl-nlp inspect runs/quickstart --recipe recipes/quickstart.yaml",
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("--recipe", required=True, help="the recipe that the model was trained with")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="default: validation")
    parser.add_argument(
        "--rows", type=positive_integer, metavar="N", help="texts of each dataset to measure on (default: 300)"
    )
    parser.add_argument(
        "--output", help="the file to write (default: inspection.json in the model's folder; none for a Hub id)"
    )
    add_overrides(parser)


def inspect(options: argparse.Namespace) -> None:
    """Measure how far each layer of the encoder moved, and how much each task needs each layer and attention head."""
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.run_folder import INSPECTION_NAME

    recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
    beside = Path(options.model) / INSPECTION_NAME if Path(options.model).is_dir() else None
    is_beside = options.output is None or (beside is not None and Path(options.output).resolve() == beside.resolve())
    output = beside if is_beside else writable_file(options.output, options.recipe, options.model)
    quiet_libraries()
    from mtl_nlp.transfer.inspection import DEFAULT_ROWS, inspect_model, write_inspection
    from mtl_nlp.transfer.inspection_tables import describe_inspection

    rows = DEFAULT_ROWS if options.rows is None else options.rows
    content = inspect_model(options.model, recipe, options.split, rows)
    print(describe_inspection(content))
    if output is not None:
        with writing_to(output, "--output"):
            write_inspection(output, content)
        draw = f" Draw it: mtl-nlp report {options.model}" if output == beside else ""
        print(conceal(f"\nThe inspection is in {output}.{draw}"))
