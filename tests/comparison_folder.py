"""Synthetic folders of comparisons and runs, as `mtl-nlp compare` and `mtl-nlp train` leave them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from toys import build_config

from mtl_nlp import MultitaskConfig, Regression, Task, TextClassification, TokenClassification
from mtl_nlp.messages import json_text

TASKS: tuple[Task, ...] = (
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2"),
    TextClassification(name="genre", labels=["news", "sport", "<script>alert(1)</script>"]),
    Regression(name="$rating_{"),
)
METRICS = {"token-classification": "f1", "text-classification": "accuracy", "regression": "pearson"}
WORDS = [
    "Ada",
    "Lovelace",
    "sleeps",
    "in",
    "Oslo",
    "while",
    "the",
    "<b>train</b>",
    "leaves",
    "$5",
    "&",
    "more",
    "on",
    "time",
    "today",
    "Bergen",
    "東京",
]
EFFECTS = (("hurt", -0.017), ("helped", 0.012), ("no clear difference", 0.001))
COSTS = {
    "single": (3, 330_000_000, 9000, 660.0, 3, 3000.0),
    "hard": (1, 110_000_000, 3000, 240.0, 1, 1000.0),
    "adapters": (1, 112_000_000, 6000, 400.0, 3, 2600.0),
}


def many_tasks(count: int, labels: Sequence[str] = ("yes", "no")) -> tuple[Task, ...]:
    """Return tasks of one type with the same labels."""
    return tuple(TextClassification(name=f"task-{number}", labels=list(labels)) for number in range(count))


def predictions(
    tasks: Sequence[Task], skill: float, seed: int, texts: int = 100, size: int = 12
) -> list[dict[str, Any]]:
    """Return the lines of a `predictions.jsonl`: answers that are right with the probability `skill`."""
    found = []
    for task in tasks:
        data = random.Random(f"gold {task.name}")
        chance = random.Random(f"{task.name} {seed} {skill}")
        for row in range(texts):
            words = data.choices(WORDS, k=data.randrange(2, size))
            seen = [data.random() < 0.8 for _ in words]
            entry = {"task": task.name, "dataset": "ewt", "split": "test", "row": row}
            if task.type == "token-classification":
                gold = [data.choice(["O", "O", "B-PER", "B-LOC"]) for _ in words]
                guess = [tag if chance.random() < skill else "O" for tag in gold]
                score: Any = [round(0.5 + chance.random() / 2, 4) for _ in words]
                entry |= {"tokens": words, "gold": gold, "prediction": guess, "score": score}
            elif task.type == "regression":
                number = data.random() * 5
                guess = number + chance.gauss(0, 1 - skill)
                entry |= {
                    "text": " ".join(words),
                    "text_pair": "Ada",
                    "gold": number,
                    "prediction": guess,
                    "score": None,
                }
                seen.append(True)
            else:
                gold = data.choice(list(task.labels))
                guess = gold if chance.random() < skill else chance.choice(list(task.labels))
                score = round(0.4 + chance.random() * 0.6, 4)
                entry |= {"text": " ".join(words), "gold": gold, "prediction": guess, "score": score}
            found.append({**entry, "seen": seen})
    return found


def training_log(tasks: Sequence[Task], steps: int = 300) -> list[dict[str, Any]]:
    """Return the entries of a `training_log.jsonl` with an evaluation every 50 steps."""
    log: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        epoch = 3 * step / steps
        losses = {f"loss_{task.name}": (2 + n) * math.exp(-step / 90) + 0.2 * n for n, task in enumerate(tasks)}
        weights = {f"weight_{task.name}": 1 + 0.2 * n * step / steps for n, task in enumerate(tasks)}
        entry = {"step": step, "epoch": epoch, "loss": sum(losses.values()), "learning_rate": 2e-4 * (1 - step / steps)}
        log.append({**entry, "padding": 0.1, **losses, **weights})
        if step % 50 == 0:
            scores = {}
            for number, task in enumerate(tasks):
                peak = 1 - math.exp(-step / 60) - (0.0008 * max(0, step - 100) if number == 0 else 0)
                scores[f"eval_{task.name}_{METRICS[task.type]}"] = 0.8 * peak
                scores[f"eval_{task.name}_loss"] = 1 - peak / 2
            log.append({"step": step, "epoch": epoch, **scores})
    return log


def write_run(
    folder: Path,
    tasks: Sequence[Task] = TASKS,
    *,
    skill: float = 0.8,
    seed: int = 1,
    steps: int = 300,
    texts: int = 100,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write the files of a trained run, without weights and tokenizer."""
    folder.mkdir(parents=True)
    MultitaskConfig(text_config=build_config("bert"), tasks=list(tasks)).save_pretrained(folder)
    log = training_log(tasks, steps)
    best = {
        task.name: {
            "score": METRICS[task.type],
            "value": 0.7,
            "step": 100,
            "kept_value": 0.6,
            "kept_step": steps,
            "fell": True,
        }
        if number == 0
        else {"score": METRICS[task.type], "value": 0.7, "step": steps, "kept_value": 0.7, "kept_step": steps}
        for number, task in enumerate(tasks)
    }
    results = {
        "split": "test",
        "tasks": {task.name: {METRICS[task.type]: skill} for task in tasks},
        "mtl_score": skill,
        "training": {
            "steps": steps,
            "epochs": 3.0,
            "processes": 1,
            "mixture": {
                "ewt": {"rows": 1000, "probability": 0.6, "drawn": 1800},
                "wnut": {"rows": 200, "probability": 0.4, "drawn": 1200},
            },
            "seconds": 240.0,
            "rows": 3000,
            "rows_per_second": 12.5,
            "encoder_passes": 3000,
            "parameters": 110_000_000,
            "bytes": 110_000_000,
            "best": best,
        },
        "provenance": {"mtl_nlp": "0.1", "versions": {"torch": "2.13.0"}, "data_fingerprints": {"ewt/test": "f00"}},
    }
    recipe = {
        "encoder": "google-bert/bert-base-uncased",
        "output_dir": "/home/ada/runs/x",
        "tasks": {task.name: {"type": task.type} for task in tasks},
        "datasets": {
            name: {
                "path": "json",
                "data_files": {"train": f"/home/ada/data/{name}.jsonl"},
                "inputs": {"text": "t"},
                "labels": {task: task for task in names},
            }
            for name, names in (labels or {"ewt": [task.name for task in tasks], "wnut": []}).items()
        },
        "training": {"learning_rate": 2e-4},
    }
    (folder / "results.json").write_text(json_text(results), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    _write_lines(folder / "training_log.jsonl", log)
    _write_lines(folder / "predictions.jsonl", predictions(tasks, skill, seed, texts))
    return folder


def write_comparison(
    folder: Path,
    tasks: Sequence[Task] = TASKS,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    sides: Sequence[str] = ("hard", "adapters"),
    cost: bool = True,
    runs: bool = True,
    texts: int = 100,
) -> Path:
    """Write a comparison of ways to share with single-task runs, and the files of all its runs."""
    content: dict[str, Any] = {
        "split": "test",
        "seeds": list(seeds),
        "reference": "single",
        "match": "passes",
        "sides": {},
        "tasks": {},
        "delta_m": {side: {"value": -0.4, "low": -1.1, "high": 0.3} for side in sides},
        "differs": ["single: training.learning_rate is 0.0001 and not 0.0002"],
        "warnings": ["The single side ran with the rates of the joint recipe, which were tuned for neither side."],
        "notes": ["ewt: 4000 of 12544 training rows drawn"],
        "provenance": {
            "mtl_nlp": "0.1",
            "versions": {"torch": "2.13.0"},
            "data_fingerprints": {"ewt/test": "f00"},
            "recipes": dict.fromkeys(sides, "encoder: bert\noutput_dir: ./x # <script>alert(2)</script>\n"),
        },
    }
    for place, side in enumerate(["single", *sides]):
        names = [[task] for task in tasks] if side == "single" else [list(tasks)]
        by_seed: dict[str, list[dict[str, Any]]] = {}
        for seed in seeds if runs else ():
            by_seed[str(seed)] = []
            for number, group in enumerate(names):
                key = f"{side}-{seed}-{number}"
                write_run(folder / "runs" / key, group, skill=0.75 + 0.02 * place, seed=seed, texts=texts)
                by_seed[str(seed)].append({"folder": f"runs/{key}", "key": key, "tasks": [task.name for task in group]})
        title = "each task alone" if side == "single" else f"{side}.yaml"
        keys = ("models", "parameters", "training_passes", "training_seconds", "answering_passes", "ms_per_1000_texts")
        values = dict(zip(keys, COSTS[side], strict=True)) if cost else dict.fromkeys(keys)
        values["bytes"] = 4 * COSTS[side][1] if cost else None
        content["sides"][side] = {"title": title, "runs": by_seed, "cost": values}
    for number, task in enumerate(tasks):
        content["tasks"][task.name] = _task(task, number, ["single", *sides], len(seeds))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json_text(content, indent=2), encoding="utf-8")
    return folder


def _task(task: Task, number: int, sides: Sequence[str], seeds: int) -> dict[str, Any]:
    word, delta = EFFECTS[number % len(EFFECTS)]
    values = {
        side: [0.8 + (delta if side != "single" else 0) + 0.002 * seed for seed in range(seeds)] for side in sides
    }
    return {
        "type": task.type,
        "metric": METRICS[task.type],
        "texts": 100,
        "values": values,
        "scores": {side: {METRICS[task.type]: of_side} for side, of_side in values.items()},
        "differences": {
            f"{side} - single": {
                "delta": delta,
                "low": delta - 0.01 if seeds > 1 else None,
                "high": delta + 0.01 if seeds > 1 else None,
                "p": 0.01 if seeds > 1 else None,
                "p_holm": 0.03 if seeds > 1 else None,
                "smallest": 0.013 if seeds > 1 else None,
                "df": 5.1,
                "variance": {"seeds": 1e-6, "texts": 4e-6},
                "word": word if seeds > 1 else None,
            }
            for side in sides[1:]
        },
    }


def change(folder: Path, **changes: Any) -> Path:
    """Replace keys of a comparison's file."""
    path = folder / "comparison.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json_text(content | changes), encoding="utf-8")
    return folder


def _write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json_text(entry) + "\n" for entry in entries), encoding="utf-8")
