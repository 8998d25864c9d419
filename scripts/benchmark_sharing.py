"""Compare hard sharing, soft sharing and single tasks: python scripts/benchmark_sharing.py --seeds 1 2 3

For recipes/mixed.yaml and recipes/ewt.yaml, every side trains for the same number of passes over its rows, with the
settings of the recipe except for the learning rates, which are chosen for each side:

- single: each task in a separate run, on the datasets that feed the task
- hard: the unchanged recipe, one encoder for all tasks
- adapters: the encoder frozen, one adapter per task (r 8, all linear layers)
- shared: the encoder trained, and one adapter per task
- shared, pull: the same, with a small and with a large pull of the adapters towards their mean

--rows limits the training rows of each dataset; the rows are drawn once for all sides and seeds. --epochs is the number
of passes. The rates were chosen with --rows 1500 --seeds 1 --splits validation, --rate-factor and
--adapter-learning-rate. Every finished run adds one line to --output. A second call runs only the missing runs and
prints the table of all runs. The script needs MTL_NLP_DATA and MINILM, as the recipes do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import logging

from mtl_nlp import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare

RECIPES = Path(__file__).parents[1] / "recipes"
ADAPTERS = {"r": 8, "target_modules": "all-linear"}
SIDES: dict[str, dict[str, Any] | None] = {
    "single": None,
    "hard": None,
    "adapters": {**ADAPTERS, "train_encoder": False},
    "shared": ADAPTERS,
    "shared, pull 0.01": {**ADAPTERS, "pull": 0.01},
    "shared, pull 1": {**ADAPTERS, "pull": 1.0},
}
RATE_FACTORS = {
    "mixed": {"single": 3.0, "hard": 3.0, "adapters": 3.0, "shared": 3.0},
    "ewt": {"single": 3.0, "hard": 3.0, "adapters": 10.0, "shared": 3.0},
}
"""The factor on the recipe's `learning_rate` and `head_learning_rate`."""
ADAPTER_RATES = {"mixed": {"adapters": 3.0e-4, "shared": 1.0e-3}, "ewt": {"adapters": 1.0e-3, "shared": 1.0e-3}}


class Rates(NamedTuple):
    """The learning rates of one run."""

    rate_factor: float
    adapter_learning_rate: float | None


def rates_of(name: str, side: str, options: argparse.Namespace) -> Rates:
    """Return the learning rates of a side: the rates in the options, or else the chosen rates."""
    without_pull = side.partition(",")[0]
    rate = options.adapter_learning_rate or ADAPTER_RATES[name][without_pull] if SIDES[side] else None
    return Rates(options.rate_factor or RATE_FACTORS[name][without_pull], rate)


def recipe_of(name: str, side: str, task: str | None, seed: int, epochs: float, rates: Rates) -> Recipe:
    """Return the recipe of one run, reduced to one task if a task is given."""
    recipe = Recipe.load(RECIPES / f"{name}.yaml")
    data = recipe.model_dump(exclude_defaults=True)
    data["training"] |= {
        "seed": seed,
        "num_train_epochs": epochs,
        "eval_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    for key in ("learning_rate", "head_learning_rate"):
        data["training"][key] *= rates.rate_factor
    if SIDES[side] is not None:
        data["adapters"] = SIDES[side]
        data["training"]["adapter_learning_rate"] = rates.adapter_learning_rate
    if task is not None:
        data["tasks"] = {task: data["tasks"][task]}
        data["datasets"] = {key: dataset for key, dataset in data["datasets"].items() if task in dataset["labels"]}
        for dataset in data["datasets"].values():
            dataset["labels"] = {task: dataset["labels"][task]}
        data.pop("loss", None)
    return Recipe.from_dict(data)


def train_and_score(recipe: Recipe, options: argparse.Namespace) -> dict[str, Any]:
    """Train, and return the primary score of each task on each split in percent, the seconds and the parameters."""
    run = prepare(recipe)
    for name, encoded in run.splits["train"].items():
        if options.rows is not None and encoded.num_windows > options.rows:
            windows = encoded.windows.shuffle(seed=0).select(range(options.rows))
            run.splits["train"][name] = dataclasses.replace(encoded, windows=windows.flatten_indices())
    model = build_model(run)
    trainer = build_trainer(run, model, training_arguments(recipe))
    started = time.time()
    trainer.train()
    found: dict[str, Any] = {
        "seconds": round(time.time() - started),
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }
    for split in options.splits:
        scores = trainer.score(run.splits[split]).scores
        found[split] = {task: 100 * values[run.tasks[task].kind.primary_score] for task, values in scores.items()}
    return found


def print_table(lines: list[dict[str, Any]], name: str, split: str) -> None:
    """Print mean ± standard deviation over seeds of every side, and the difference to single tasks, as Markdown."""
    tasks = list(dict.fromkeys(task for line in lines for task in line[split]))
    print(f"\n{name}.yaml, {split}\n")
    print(f"| side | {' | '.join([*tasks, 'mean', 'mean - single'])} | seeds | parameters trained |")
    print("|---|" + "---|" * (len(tasks) + 4))
    single: dict[int, float] = {}
    for side in SIDES:
        by_seed: dict[int, dict[str, float]] = {}
        for line in lines:
            if line["side"] == side:
                by_seed.setdefault(line["seed"], {}).update(line[split])
        by_seed = {seed: scores for seed, scores in by_seed.items() if len(scores) == len(tasks)}
        if not by_seed:
            continue
        means = {seed: statistics.mean(scores.values()) for seed, scores in by_seed.items()}
        if side == "single":
            single = means
        cells = [_spread([scores[task] for scores in by_seed.values()]) for task in tasks]
        differences = [mean - single[seed] for seed, mean in means.items() if seed in single]
        trained = sum(line["trained"] for line in lines if line["side"] == side) / len(by_seed)
        cells += [_spread(list(means.values())), _spread(differences, "+") if differences else ""]
        print(f"| {side} | {' | '.join(cells)} | {len(by_seed)} | {trained / 1e6:.1f} M |")


def _spread(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def main() -> None:
    """Run the missing runs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=("mixed", "ewt"), default=["mixed", "ewt"])
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, help="number of training rows of each dataset (default: all)")
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--rate-factor", type=float, help=f"factor on the recipe's rates (default: {RATE_FACTORS})")
    parser.add_argument("--adapter-learning-rate", type=float, help=f"rate of the adapters (default: {ADAPTER_RATES})")
    parser.add_argument("--splits", nargs="+", default=["validation", "test"])
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_sharing.jsonl"))
    options = parser.parse_args()
    logging.set_verbosity_error()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    setting = {"rows": options.rows, "epochs": options.epochs}
    for seed in options.seeds:
        for name in options.recipes:
            for side in options.sides:
                tasks = list(Recipe.load(RECIPES / f"{name}.yaml").tasks) if side == "single" else [None]
                rates = rates_of(name, side, options)
                for task in tasks:
                    what = {"recipe": name, "side": side, "task": task, "seed": seed, **setting, **rates._asdict()}
                    if any(what.items() <= line.items() and {*options.splits} <= line.keys() for line in lines):
                        continue
                    recipe = recipe_of(name, side, task, seed, options.epochs, rates)
                    line = {**what, **train_and_score(recipe, options)}
                    lines.append(line)
                    with options.output.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(line, flush=True)
    for name in options.recipes:
        chosen = [
            line
            for line in lines
            if {*options.splits} <= line.keys()
            and {"recipe": name, **setting, **rates_of(name, line["side"], options)._asdict()}.items() <= line.items()
        ]
        for split in options.splits:
            print_table(chosen, name, split)


if __name__ == "__main__":
    main()
