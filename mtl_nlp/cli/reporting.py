"""The command `report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtl_nlp.cli.options import add_command, quiet_libraries
from mtl_nlp.errors import CommandError, RunError, writing_to
from mtl_nlp.messages import conceal

FORMATS = ("text", "markdown", "latex", "csv")
"""The formats of `mtl_nlp.report.tables`, without importing that module."""


def add_commands(commands: Any) -> None:
    """Add the command of this module to the command line."""
    parser = add_command(
        commands,
        report,
        "write report.html for a run or a comparison",
        "mtl-nlp report runs/quickstart\n  mtl-nlp report runs/quickstart-compare --format latex",
    )
    parser.add_argument("run", help="folder of a trained run or of a comparison")
    parser.add_argument("--format", choices=FORMATS, help="print the table of a comparison instead of writing the page")
    parser.add_argument("--no-examples", action="store_true", help="leave out the texts of the datasets")


def report(options: argparse.Namespace) -> None:
    """Write report.html, one page that says whether sharing helped, from the files of a run or a comparison."""
    folder = Path(options.run)
    if not folder.is_dir():
        raise CommandError(f"There is no folder {folder}. Name the folder of a trained run or of a comparison.")
    if options.format is not None:
        _print_table(folder, options.format)
        return
    quiet_libraries()
    from mtl_nlp.report.page import write_report

    with writing_to(folder, "RUN", RunError):
        path = write_report(folder, examples=not options.no_examples)
    print(conceal(f"The report is in {path}."))


def _print_table(folder: Path, format: Any) -> None:
    from mtl_nlp.hub.comparison import read_comparison
    from mtl_nlp.report.tables import comparison_table
    from mtl_nlp.run_folder import COMPARISON_NAME

    path = folder / COMPARISON_NAME
    if not path.is_file():
        raise CommandError(f"--format: {folder} has no {COMPARISON_NAME}. Name the folder of a comparison.")
    print(comparison_table(read_comparison(path), format), end="")
