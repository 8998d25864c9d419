"""Compare loss weightings and gradient methods on ewt.yaml: python scripts/compare_balancing.py --output FOLDER

Writes a recipe for each method, the recipe `ewt.yaml` with a different section `loss`, and runs `mtl-nlp compare` on
them: every method against each task alone, with the same rows, passes and schedule. `static` is the recipe itself.

    python scripts/compare_balancing.py --output runs/balancing --seeds 3
    python scripts/compare_balancing.py --output runs/others --seeds 1 --methods dwa famo gradnorm cagrad mgda

Needs MTL_NLP_DATA and MINILM, see recipes/README.md, and the extra `balancing`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import get_args

import yaml

from mtl_nlp.recipe.loss import GradientMethodName, Weighting

RECIPE = Path(__file__).parents[1] / "recipes" / "ewt.yaml"
METHODS = [*get_args(Weighting), *get_args(GradientMethodName)]


def write_side(method: str, rows: int, folder: Path) -> Path:
    """Write the recipe of a method, and return its path.

    Args:
        method: the name of a loss weighting or of a gradient method.
        rows: the number of training rows.
        folder: the folder of the recipes.
    """
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    recipe["loss"] = {"gradients" if method in get_args(GradientMethodName) else "weighting": method}
    recipe["output_dir"] = method
    recipe["datasets"]["ewt"]["max_rows"] = {"train": rows}
    # The rates were chosen for all rows, and fewer steps need higher rates.
    recipe["training"] |= {"learning_rate": 2e-4, "head_learning_rate": 1e-3, "eval_strategy": "no"}
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def main() -> None:
    """Parse the command line, write the recipes and run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the recipes and of the comparison")
    parser.add_argument("--seeds", default="3", help="see mtl-nlp compare")
    parser.add_argument("--jobs", default="1", help="runs at a time; set OMP_NUM_THREADS=1 for more than one")
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["static", "uncertainty", "equal-start", "pcgrad", "upgrad"]
    )
    options = parser.parse_args()
    folder = options.output / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    sides = [str(write_side(method, options.rows, folder)) for method in options.methods]
    command = [sys.executable, "-m", "mtl_nlp", "compare", *sides, "--seeds", options.seeds, "--jobs", options.jobs]
    command += ["--output", str(options.output / "comparison"), "--format", "markdown"]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
