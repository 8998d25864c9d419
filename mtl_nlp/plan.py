"""What a recipe would train on, as text: `mtl-nlp plan`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mtl_nlp.modeling.tasks_multitask import reads_words
from mtl_nlp.run import Run
from mtl_nlp.training_args import MultitaskTrainingArguments


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of text in columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [bool(rows) and all(not isinstance(row[column], str) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def describe_plan(run: Run, arguments: MultitaskTrainingArguments) -> str:
    """Tasks, label spaces, rows, lengths, sampling probabilities, steps, and what is cut or lost."""
    mixture = run.mixture
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps = math.ceil(len(mixture) / batch)
    total = arguments.max_steps if arguments.max_steps > 0 else math.ceil(steps * arguments.num_train_epochs)
    tasks = [
        (name, task.type, task.num_labels, _shortened(task.labels) or "a number", ", ".join(_feeders(run, name)))
        for name, task in run.tasks.items()
    ]
    datasets = []
    for (name, encoded), probability in zip(mixture.datasets.items(), mixture.probabilities, strict=True):
        rows = {split: run.splits.get(split, {}).get(name) for split in ("train", "validation", "test")}
        lengths = encoded.lengths
        datasets.append(
            (
                name,
                *(0 if split is None else split.num_rows for split in rows.values()),
                round(float(probability), 4),
                round(float(probability) * len(mixture)),
                int(np.median(lengths)),
                int(lengths.max()),
            )
        )
    words = " Texts are split into words." if reads_words(run.tasks.values()) else ""
    parts = [
        f"encoder: {run.recipe.encoder}, reads at most {run.max_length or 'any number of'} sub-words at once.{words}",
        table(("task", "type", "labels", "label space", "datasets"), tasks),
        table(
            ("dataset", "train", "validation", "test", "probability", "rows/epoch", "median length", "longest"),
            datasets,
        ),
        f"{steps} steps an epoch of {batch} rows each, {total} in all.",
        describe_notes(run),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_notes(run: Run) -> str:
    """What there is to tell about the data, a line each."""
    return "\n".join(f"note: {note}" for note in run.notes)


def _feeders(run: Run, task: str) -> list[str]:
    return [name for name, encoded in run.splits["train"].items() if task in encoded.references]


def _shortened(labels: Sequence[str], most: int = 60) -> str:
    text = " ".join(labels)
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"
