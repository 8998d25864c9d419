"""Compare one joint model with three stock runs on English-EWT: python scripts/benchmark_ewt.py --seeds 1 2 3

Both sides start from the same encoder and read the same words. The stock side is transformers' Trainer with the stock
AutoModel classes, one run per task: 2 epochs, batch 32, learning rate 2e-4, bf16, batches grouped by length. The joint
side is recipes/ewt.yaml with a different seed: one run for all three tasks. Spans are scored strictly (seqeval, IOB2)
on both sides.

Every finished run adds one line to --output. A second call runs only the missing runs and prints the table of all runs.
The script needs MTL_NLP_DATA and MINILM, as the recipe does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from mtl_nlp import Recipe
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import score
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run, prepare

RECIPE = Path(__file__).parents[1] / "recipes" / "ewt.yaml"
TASKS = ("pos", "ner", "genre")
STOCK_EPOCHS = 2
SPLITS = ("validation", "test")


def stock_dataset(encoded: EncodedDataset, task: str) -> Dataset:
    """Return the rows in the form of the stock classes: one label per sub-word or one label per text."""
    columns: dict[str, list] = {"input_ids": [], "attention_mask": [], "labels": [], "length": []}
    for window in encoded.windows:
        columns["input_ids"].append(window["input_ids"])
        columns["attention_mask"].append([1] * len(window["input_ids"]))
        columns["length"].append(len(window["input_ids"]))
        label = window[f"label:{task}"]
        if isinstance(label, list):
            labels = np.full(len(window["input_ids"]), -100)
            labels[window["positions"]] = label
            label = labels.tolist()
        columns["labels"].append(label)
    return Dataset.from_dict(columns)


def stock_run(run: Run, task: str, seed: int) -> dict[str, float]:
    """Train one stock model on one task, and return its primary score on each split in percent."""
    set_seed(seed)
    auto_class = (
        AutoModelForTokenClassification if run.tasks[task].kind.level == "token" else AutoModelForSequenceClassification
    )
    model = auto_class.from_pretrained(run.recipe.encoder, num_labels=run.tasks[task].num_labels)
    collator = DataCollatorForTokenClassification if run.tasks[task].kind.level == "token" else DataCollatorWithPadding
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=STOCK_EPOCHS,
            per_device_train_batch_size=32,
            learning_rate=2e-4,
            bf16=True,
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            seed=seed,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            collator(run.tokenizer),
            train_dataset=stock_dataset(run.splits["train"]["ewt"], task),
            processing_class=run.tokenizer,
        )
        trainer.train()
        # Trainer would also group the evaluation by length, and the predictions would not be in the order of the rows.
        trainer.args.train_sampling_strategy = "random"
        scores = {}
        for split in SPLITS:
            encoded = run.splits[split]["ewt"]
            logits = trainer.predict(stock_dataset(encoded, task)).predictions
            predictions = [plain_prediction(run, task, w, row) for w, row in zip(encoded.windows, logits, strict=True)]
            evaluation = score({"ewt": {task: predictions}}, {"ewt": encoded}, {task: run.tasks[task]})
            scores[split] = 100 * evaluation.mtl_score
    return scores


def plain_prediction(run: Run, task: str, window: dict[str, Any], logits: np.ndarray) -> str | list[str]:
    """Return the argmax without constraints on spans, as the stock pipelines do."""
    labels = run.tasks[task].labels
    if run.tasks[task].kind.level == "sequence":
        return labels[int(logits.argmax())]
    return [labels[index] for index in logits[window["positions"]].argmax(-1)]


def joint_run(seed: int) -> dict[str, dict[str, float]]:
    """Train the recipe, and return task -> split -> primary score in percent."""
    recipe = Recipe.load(RECIPE, [f"training.seed={seed}", "training.eval_strategy=no", "training.disable_tqdm=true"])
    run = prepare(recipe)
    trainer = build_trainer(run, build_model(run), training_arguments(recipe))
    trainer.train()
    trainer.save_model()
    scores: dict[str, dict[str, float]] = {task: {} for task in TASKS}
    for split in SPLITS:
        evaluation = trainer.score(run.splits[split])
        for task in TASKS:
            scores[task][split] = 100 * evaluation.scores[task][run.tasks[task].kind.primary_score]
    return scores


def print_table(lines: list[dict[str, Any]], passes: float) -> None:
    """Print the mean and range over seeds of both sides as Markdown."""
    print(f"\nencoder passes: stock 3 x {STOCK_EPOCHS} epochs, joint {passes:g} epochs\n")
    print("| split | side | seeds | " + " | ".join([*TASKS, "mean"]) + " |")
    print("|---|---|---|" + "---|" * 4)
    for split in SPLITS:
        for side in ("stock", "joint"):
            own = [line for line in lines if line["side"] == side]
            seeds = [s for s in {line["seed"] for line in own} if sum(line["seed"] == s for line in own) == len(TASKS)]
            cells = []
            means = []
            for task in TASKS:
                values = [line[split] for line in own if line["task"] == task and line["seed"] in seeds]
                if values:
                    means.append(statistics.mean(values))
                    cells.append(f"{means[-1]:.2f} ({min(values):.2f}-{max(values):.2f})")
            if means:
                print(f"| {split} | {side} | {len(seeds)} | {' | '.join(cells)} | {statistics.mean(means):.2f} |")


def main() -> None:
    """Run the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sides", nargs="+", choices=("stock", "joint"), default=["stock", "joint"])
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_ewt.jsonl"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    run = prepare(Recipe.load(RECIPE))
    for seed in options.seeds:
        for side in options.sides:
            done = {line["task"] for line in lines if (line["side"], line["seed"]) == (side, seed)}
            missing = [task for task in TASKS if task not in done]
            for tasks in [missing] if side == "joint" and missing else [[task] for task in missing]:
                started = time.time()
                found = joint_run(seed) if side == "joint" else {tasks[0]: stock_run(run, tasks[0], seed)}
                seconds = round(time.time() - started)
                new = [{"side": side, "seed": seed, "task": task, "seconds": seconds, **found[task]} for task in tasks]
                lines += new
                with options.output.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in new)
                print(*new, sep="\n", flush=True)
    print_table(lines, float(run.recipe.training["num_train_epochs"]))


if __name__ == "__main__":
    main()
