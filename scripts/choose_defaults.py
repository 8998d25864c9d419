"""Choose the defaults of several tasks on validation: python scripts/choose_defaults.py --output FOLDER

Four recipes without any tuning (data, tasks, `learning_rate: 2e-4`, at most 4,000 training rows) are trained with each
setting, and the script prints a Markdown table of the mean validation score of the tasks. For each recipe, the last
line of a choice says which value is best on the three other recipes. A second run trains only what is missing.

Needs MTL_NLP_DATA and MINILM, see recipes/README.md. A setting takes about six minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RATE = 2e-4
ROWS = {"ewt": {"ewt": 4000}, "snips": {"snips": 4000}, "mixed": dict.fromkeys(("ewt", "wnut17", "banking77"), 2000)}
EPOCHS = {"quickstart": 5}
BATCH = {"quickstart": 8}
RECIPES = ("ewt", "snips", "mixed", "quickstart")

Setting = Mapping[str, float | str]
"""`head` (a factor of the learning rate), `weight`, `spans`, `pooling`, `warmup`, `clip` and `epochs` (a factor)."""

STOCK: Setting = {
    "head": 1.0, "weight": 1.0, "spans": 1.0, "pooling": "cls", "warmup": 0.0, "clip": 1.0, "epochs": 1.0
}  # fmt: skip
BASE: Setting = {**STOCK, "head": 10.0, "weight": 0.3, "pooling": "mean"}
DEFAULTS: Setting = {**BASE, "head": 20.0, "weight": 0.6, "spans": 3.0}
CHOICES: dict[str, list[Setting]] = {
    "nothing set": [STOCK],
    "head_learning_rate / learning_rate": [{**BASE, "head": value} for value in (5.0, 10.0, 20.0)],
    "weight of a task on texts": [{**BASE, "weight": value} for value in (1.0, 0.3, 0.1)],
    "weight of a task on spans beside tasks on every word": [{**BASE, "spans": value} for value in (1.0, 3.0)],
    "factor, texts, spans": [{**BASE, "spans": 3.0}, DEFAULTS],
    "pooling of a task on texts": [{**BASE, "pooling": value} for value in ("cls", "mean")],
    "warmup": [{**BASE, "warmup": value} for value in (0.0, 0.1)],
    "max_grad_norm (0: no clipping)": [{**BASE, "clip": value} for value in (1.0, 0.0)],
    "epochs / 3": [{**BASE, "epochs": value} for value in (1.0, 2.0)],
}


def plain(name: str, setting: Setting, seed: int, output: Path) -> dict[str, Any]:
    """Return a recipe without tuning, with a setting."""
    recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    kept = {key: recipe[key] for key in ("encoder", "tasks", "datasets")}
    of_texts = [task for task, options in kept["tasks"].items() if options["type"] != "token-classification"]
    for task in of_texts:
        kept["tasks"][task]["pooling"] = setting["pooling"]
    for dataset, rows in ROWS.get(name, {}).items():
        kept["datasets"][dataset]["max_rows"] = {"train": rows}
    for dataset in kept["datasets"].values():
        files = {split: str(ROOT / "recipes" / path) for split, path in dataset["data_files"].items()}
        dataset["data_files"] = dataset["data_files"] if "$" in str(files) else files
    training = {
        "num_train_epochs": EPOCHS.get(name, 3) * setting["epochs"], "learning_rate": RATE,
        "head_learning_rate": RATE * float(setting["head"]), "warmup_steps": setting["warmup"],
        "max_grad_norm": setting["clip"], "per_device_train_batch_size": BATCH.get(name, 32), "bf16": True,
        "seed": seed, "eval_strategy": "epoch", "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    of_spans = [task for task, options in kept["tasks"].items() if "scheme" in options]
    has_plain_words = len(of_texts) + len(of_spans) < len(kept["tasks"])
    spans = setting["spans"] if has_plain_words else 1.0
    weights = {**dict.fromkeys(of_texts, setting["weight"]), **dict.fromkeys(of_spans, spans)}
    return {**kept, "output_dir": str(output), "loss": {"weights": weights}, "training": training}


def score(name: str, setting: Setting, seed: int, folder: Path) -> float:
    """Train a recipe with a setting unless it has been trained, and return the mean validation score in percent."""
    label = "-".join(f"{key}{value}" for key, value in setting.items())
    run = folder / f"{name}-{label}-{seed}"
    if not (run / "results.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / f"{run.name}.yaml"
        recipe.write_text(yaml.safe_dump(plain(name, setting, seed, run), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "mtl_nlp", "train", str(recipe), "--overwrite"]
        with open(folder / f"{run.name}.log", "w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        (run / "model.safetensors").unlink()
    entries = [json.loads(line) for line in (run / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    return 100 * next(entry["eval_mtl_score"] for entry in reversed(entries) if "eval_mtl_score" in entry)


def main() -> None:
    """Parse the command line, train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; set OMP_NUM_THREADS=1 for more than one")
    parser.add_argument("--only", nargs="+", choices=[*CHOICES], default=[*CHOICES])
    options = parser.parse_args()
    cases = {
        (name, tuple(setting.items()), seed)
        for choice in options.only
        for setting in CHOICES[choice]
        for name in RECIPES
        for seed in options.seeds
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {case: pool.submit(score, case[0], dict(case[1]), case[2], options.output) for case in sorted(cases)}
    found = {case: job.result() for case, job in jobs.items()}
    print(f"| choice | value | {' | '.join(RECIPES)} | mean |")
    print(f"|---|---|{'---|' * (len(RECIPES) + 1)}")
    for choice in options.only:
        rows = []
        for setting in CHOICES[choice]:
            of = [statistics.fmean(found[n, tuple(setting.items()), seed] for seed in options.seeds) for n in RECIPES]
            rows.append(of)
            print(f"| {choice} | {_value(choice, setting)} | {' | '.join(f'{x:.2f}' for x in of)} | {_mean(of):.2f} |")
        if len(rows) > 1:
            best = [
                max(range(len(rows)), key=lambda row: _mean(rows[row][:held] + rows[row][held + 1 :]))
                for held in range(len(RECIPES))
            ]
            chosen = [_value(choice, CHOICES[choice][row]) for row in best]
            print(f"| {choice} | best on the other three | {' | '.join(chosen)} | |")


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _value(choice: str, setting: Setting) -> str:
    changed = [f"{key} {value}" for key, value in setting.items() if value != BASE[key]]
    return (
        "all defaults of the stock classes"
        if choice == "nothing set"
        else ", ".join(changed)
        if changed
        else "the base"
    )


if __name__ == "__main__":
    main()
