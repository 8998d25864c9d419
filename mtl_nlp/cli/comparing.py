"""The command that compares ways of sharing: `compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.cli.options import add_command, add_overrides, positive_integer, quiet_libraries
from mtl_nlp.cli.reporting import FORMATS
from mtl_nlp.cli.signals import Interrupted
from mtl_nlp.errors import RunError, writing_to
from mtl_nlp.messages import conceal

if TYPE_CHECKING:
    from mtl_nlp.report.tables import Format
    from mtl_nlp.transfer.sides import Side


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        compare,
        "find out whether sharing helped",
        "mtl-nlp compare recipes/quickstart.yaml --seeds 2\n"
        "  mtl-nlp compare recipes/quickstart.yaml recipes/soft_sharing.yaml --dry-run\n"
        "  mtl-nlp compare runs/joint runs/other predictions.jsonl",
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="a recipe, a file of groups (recipe and groups: {model: [task, …]}), the folder of a finished run, or a "
        "file of predictions (.jsonl); the reference is each task alone, or else the first side",
    )
    parser.add_argument(
        "--seeds", type=positive_integer, default=3, metavar="N", help="train with the seeds 1 to N (default: 3)"
    )
    parser.add_argument("--output", metavar="DIR", help="the folder of the comparison (default: OUTPUT_DIR-compare)")
    parser.add_argument(
        "--match",
        choices=("passes", "compute"),
        default="passes",
        help="the budget of each task alone: as many passes over its rows as the joint run (default), or a share of "
        "the joint run's encoder passes",
    )
    parser.add_argument(
        "--learning-curve", action="store_true", help="train on 25 %% and 50 %% of the training rows too"
    )
    parser.add_argument(
        "--jobs",
        type=positive_integer,
        default=1,
        metavar="N",
        help="train N runs at once, one per device (default: 1)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs and estimate their time")
    parser.add_argument("--format", choices=FORMATS, default="text", help="the format of the table (default: text)")
    add_overrides(parser)


def compare(options: argparse.Namespace) -> None:
    """Train recipes and each of their tasks alone with several seeds, compare the scores, and write a report.

    Finished runs and files of predictions are compared without training. A second call trains only what is missing.
    """
    quiet_libraries()
    from mtl_nlp.transfer.comparing import default_output, describe_runs
    from mtl_nlp.transfer.sides import read_sides

    sides = read_sides(options.sides, options.set, allow_code=options.allow_code)
    output = Path(options.output) if options.output is not None else default_output(sides)
    if options.dry_run:
        print(describe_runs(sides, options.seeds, output, options.match, learning_curve=options.learning_curve))
        return
    compare_and_show(
        sides,
        options.seeds,
        output,
        options.format,
        match=options.match,
        jobs=options.jobs,
        learning_curve=options.learning_curve,
    )


def compare_and_show(sides: list[Side], seeds: int, output: Path, format: Format = "text", **options: Any) -> None:
    """Compare sides, print the table, and write the report.

    Args:
        sides: the sides.
        seeds: the number of seeds.
        output: the folder of the comparison.
        format: the format of the table.
        **options: further arguments of `mtl_nlp.compare`.
    """
    from mtl_nlp.report.page import write_report
    from mtl_nlp.report.tables import comparison_table
    from mtl_nlp.transfer.comparing import compare as compare_sides

    try:
        comparison = compare_sides(sides, seeds, output, report=_report, **options)
    except Interrupted as error:
        error.advice = f"Finished runs and checkpoints are in {conceal(str(output))}. To continue, repeat the command."
        raise
    print(comparison_table(comparison.content, format))
    with writing_to(output, "--output", RunError):
        print(conceal(f"The report is in {write_report(output)}."))


def _report(line: str) -> None:
    print(line, flush=True)
