"""Files on what tasks share, as `mtl-nlp inspect` and a training with `analysis.conflict_every` write them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAYERS = ["embeddings", *(f"layer {place}" for place in range(4))]
HEADS = 3


def conflict(tasks: Sequence[str], measurements: int = 5) -> dict[str, Any]:
    """Return the content of a `conflict.json`; the last task has no rows in the first batch."""
    size = len(tasks)
    found = []
    for number in range(measurements):
        rows = {task: 32 if number or task != tasks[-1] else 0 for task in tasks}
        found.append(
            {
                "step": 100 * (number + 1),
                "rows": rows,
                "norms": {task: 1.0 + place if rows[task] else None for place, task in enumerate(tasks)},
                "cosine": _cosines(size, 0.1 * number, without_last=not rows[tasks[-1]]),
                "cosine_by_layer": [_cosines(size, 0.1 * layer, not rows[tasks[-1]]) for layer in range(len(LAYERS))],
            }
        )
    return {
        "every": 100,
        "tasks": list(tasks),
        "layers": LAYERS,
        "measurements": found,
        "mean": {
            "cosine": _cosines(size, 0.2),
            "cosine_by_layer": [_cosines(size, 0.15 * layer) for layer in range(len(LAYERS))],
            "norms": {task: 1.0 + place for place, task in enumerate(tasks)},
            "norms_by_layer": {task: [0.1 * layer for layer in range(len(LAYERS))] for task in tasks},
            "conflicting": [[0.0 if a == b else 0.4 for a in range(size)] for b in range(size)],
        },
    }


def _cosines(size: int, shift: float, without_last: bool = False) -> list[list[float | None]]:
    """Return cosines that fall with the distance of two tasks."""
    last = size - 1
    return [
        [
            None if without_last and last in {a, b} else 1.0 if a == b else round(0.2 - 0.2 * abs(a - b) - shift, 4)
            for a in range(size)
        ]
        for b in range(size)
    ]


def inspection(
    tasks: Sequence[str], metrics: Sequence[str], *, adapters: bool = True, weights_sha256: str | None = None
) -> dict[str, Any]:
    """Return the content of an `inspection.json` of a model with a shared adapter and one for each task."""
    chance = random.Random(0)
    names = [*tasks, "shared"]
    size = len(names)
    below = len(LAYERS) - 1
    heads = {
        task: [[round(chance.gauss(-0.01, 0.02), 4) for _ in range(HEADS)] for _ in range(below)] for task in tasks
    }
    similarity = [[1.0 if a == b else round(0.3 - 0.2 * abs(a - b), 4) for a in range(size)] for b in range(size)]
    return {
        "split": "validation",
        "rows": {"ewt": 300},
        "tasks": {
            task: {"metric": metric, "score": 0.8, "units": 300, "unit": "texts"}
            for task, metric in zip(tasks, metrics, strict=True)
        },
        "layers": LAYERS,
        "movement": [
            {"tasks": [task], "weights": [0.01 * place for place in range(5)], "cka": [1 - 0.1 * n for n in range(5)]}
            for task in (tasks if adapters else tasks[:1])
        ],
        "need": {
            "scores": {task: [0.5 + 0.07 * place for place in range(len(LAYERS))] for task in tasks},
            "units": dict.fromkeys(tasks, 2000),
        },
        "ablation": {
            "heads": heads,
            "layers": {task: [-0.2 / (1 + place) for place in range(below)] for task in tasks},
            "correlation": [[1.0 if a == b else 0.3 for a in tasks] for b in tasks],
            "shared": [{"layer": 0, "head": 2, "tasks": list(tasks[:2])}],
            "own": {task: [[1, place % HEADS]] for place, task in enumerate(tasks)},
            "harmless": {task: sum(change >= 0 for row in heads[task] for change in row) for task in tasks},
        },
        "adapters": {
            "names": names,
            "norms": {name: [0.0, *(0.2 * (place + 1) for place in range(below))] for name in names},
            "similarity": similarity,
            "similarity_by_layer": [[[None] * size for _ in names], *([similarity] * below)],
        }
        if adapters
        else None,
        "left_out": [] if adapters else ["need: the training split is streamed."],
        "provenance": {"mtl_nlp": "0.1", "versions": {}, "weights_sha256": weights_sha256},
    }


def write_insight(folder: Path, tasks: Sequence[str], metrics: Sequence[str], **options: Any) -> Path:
    """Write both files into the folder of a run."""
    (folder / "inspection.json").write_text(json.dumps(inspection(tasks, metrics, **options)), encoding="utf-8")
    (folder / "conflict.json").write_text(json.dumps(conflict(tasks)), encoding="utf-8")
    return folder
