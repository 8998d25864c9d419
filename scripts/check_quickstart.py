"""Train the quickstart with three seeds and compare its scores with their goals: python scripts/check_quickstart.py

The script prints, for each seed and as a mean, the scores on the test split in percent, the expected calibration error
of the topic, the seconds of training, and the epoch with the lowest validation loss of the topic. The script ends with
exit code 1 if the mean of a score misses its goal. A second run trains only the seeds that are missing in --output.

The goal for the time (100 seconds on 2 quiet cores) is printed, and not enforced, since it depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_nlp.run_folder import PREDICTIONS_NAME, RESULTS_NAME, TRAINING_LOG_NAME

ROOT = Path(__file__).parents[1]
GOALS = {"POS": 96.0, "NER": 85.0, "topic": 80.0}
LARGEST_ECE = 0.10
SECONDS = 100


def main() -> None:
    """Train the missing seeds, print the table, and exit with 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "quickstart-seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--set", dest="changes", action="append", default=[], help="change a field of the recipe")
    options = parser.parse_args()
    rows = []
    print("| seed | POS accuracy | NER F1 | topic accuracy | ECE | seconds | lowest topic loss |")
    print("|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        folder = options.output / str(seed)
        if not (folder / RESULTS_NAME).is_file():
            train(folder, seed, options.changes)
        *numbers, epoch = figures(folder)
        rows.append(numbers)
        print(line(str(seed), numbers, epoch))
    means = np.mean(rows, axis=0)
    goals = ", ".join(f"{name} {goal:.0f}" for name, goal in GOALS.items())
    print(line("mean", means, f"goals: {goals}, ECE {LARGEST_ECE:.2f}, {SECONDS} seconds"))
    missed = [name for name, mean in zip(GOALS, means, strict=False) if mean < GOALS[name]]
    sys.exit(1 if missed or means[3] > LARGEST_ECE else 0)


def train(folder: Path, seed: int, changes: Sequence[str]) -> None:
    """Train the quickstart with a seed."""
    settings = [f"output_dir={folder}", f"training.seed={seed}", *changes]
    command = [sys.executable, "-m", "mtl_nlp", "train", str(ROOT / "recipes" / "quickstart.yaml"), "--overwrite"]
    command += [part for setting in settings for part in ("--set", setting)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def figures(folder: Path) -> tuple[float, float, float, float, float, str]:
    """Return the scores in percent, the calibration error of the topic, the seconds, and the epoch of its best loss."""
    results = json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
    tasks = results["tasks"]
    scores = (tasks["pos"]["accuracy"], tasks["ner"]["f1"], tasks["topic"]["accuracy"])
    predictions = map(json.loads, (folder / PREDICTIONS_NAME).read_text(encoding="utf-8").splitlines())
    topics = [row for row in predictions if row["task"] == "topic"]
    error = calibration_error([row["score"] for row in topics], [row["prediction"] == row["gold"] for row in topics])
    log = map(json.loads, (folder / TRAINING_LOG_NAME).read_text(encoding="utf-8").splitlines())
    losses = [entry["eval_topic_loss"] for entry in log if "eval_topic_loss" in entry]
    pos, ner, topic = (100 * score for score in scores)
    epoch = f"after epoch {int(np.argmin(losses)) + 1} of {len(losses)}"
    return pos, ner, topic, error, results["training"]["seconds"], epoch


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy (Guo et al. 2017, equation 3).

    Args:
        confidences: the probability of each predicted class, from 0 to 1.
        correct: whether each prediction is right.
        bins: the number of bins of equal width from 0 to 1. Each bin's gap has the weight of its predictions.
    """
    values, right = np.asarray(confidences), np.asarray(correct)
    places = np.minimum((values * bins).astype(int), bins - 1)
    return float(sum(abs((values - right)[places == place].sum()) for place in range(bins)) / len(values))


def line(name: str, numbers: Sequence[float], remark: str) -> str:
    """Return a line of the table."""
    pos, ner, topic, error, seconds = numbers
    return f"| {name} | {pos:.2f} | {ner:.2f} | {topic:.2f} | {error:.3f} | {seconds:.0f} | {remark} |"


if __name__ == "__main__":
    main()
