"""The loss with which each task starts, before any training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.messages import is_finite
from mtl_nlp.modeling.loss_multitask import count_step
from mtl_nlp.run.build import build_model
from mtl_nlp.run.prepare import Run

_ROWS = 16
"""The number of rows of the batch, if there are fewer datasets."""
_SEED = 0
_FAR = 5.0
"""The ratio of two losses above which the larger one leaves little of the clipped gradient to the other task."""


@torch.no_grad()
def first_losses(run: Run) -> dict[str, float]:
    """Return the mean loss of each trained task over the units of one batch, before training and without dropout.

    The batch has rows of every dataset, with a label for each of its tasks.

    Args:
        run: the run.

    Raises:
        RecipeError: if the encoder cannot be loaded.
    """
    model = build_model(run).eval()
    count = max(1, _ROWS // len(run.train))
    rows = [row for encoded in run.train.values() for row in _some_rows(encoded, count)]
    batch = MultitaskDataCollator(run.tokenizer, model.tasks)(rows)
    sums, counts = model(**batch).loss_sums, count_step([batch], model.tasks)
    return {task: float(sums[task]) / counts.units[task] for task in run.recipe.tasks if counts.units[task]}


def _some_rows(encoded: EncodedDataset | EncodedStream, count: int) -> list[dict[str, Any]]:
    """Return random rows of a dataset, and a row with a label for each of its tasks; of a stream, the first rows."""
    if isinstance(encoded, EncodedStream):
        return list(itertools.islice(encoded.windows, count))
    chosen = np.random.default_rng(_SEED).permutation(encoded.num_windows)[:count].tolist()
    for task in encoded.feeds:
        labelled = encoded.windows.data.column(LABEL_PREFIX + task).is_valid().to_numpy()
        if not labelled[chosen].any() and labelled.any():
            chosen.append(int(labelled.argmax()))
    return encoded.windows.select(sorted(chosen)).to_list()


def describe_first_losses(run: Run, losses: Mapping[str, float]) -> str:
    """Return a line with the losses at the start, and a line of advice if one is far above another.

    Only the weights of the recipe count: the default weights were chosen for losses whose sizes are known, and the
    loss of a class is bounded by the number of classes. A far larger loss is that of raw numbers or of a large weight.

    Args:
        run: the run.
        losses: the losses by task.
    """
    shown = ", ".join(f"{task} {loss:.4g}" for task, loss in losses.items())
    scaled = [task for task in losses if run.tasks[task].kind.scale is not None]
    unit = f" ({', '.join(scaled)}: of standardised numbers, whose mean as the answer has the loss 1)" if scaled else ""
    lines = [f"loss at the start: {shown}{unit}"]
    weighted = {task: loss * _first_weight(run, task) for task, loss in losses.items()}
    compared = {task: loss for task, loss in weighted.items() if is_finite(loss) and loss > 0.0}
    if bad := [task for task, loss in losses.items() if not math.isfinite(loss)]:
        lines.append(f"note: the loss of {', '.join(bad)} is not finite. Check the labels and the encoder")
    if run.recipe.loss.weighting == "static" and compared:
        high, low = max(compared, key=compared.__getitem__), min(compared, key=compared.__getitem__)
        ratio = compared[high] / compared[low]
        if ratio > _FAR:
            lines.append(
                f"note: the weighted loss of {high} starts at {ratio:.3g} times that of {low}, so that {low} may "
                f"hardly be learned. {_cure(run, high, ratio)}"
            )
    return "\n".join(lines)


def _first_weight(run: Run, task: str) -> float:
    """Return the weight of a task at the start in the recipe; 1 if it has none."""
    weight = run.recipe.loss.weights.get(task, 1.0)
    return weight[0] if isinstance(weight, list) else weight


def _cure(run: Run, task: str, ratio: float) -> str:
    """Return the key of the recipe that brings the loss of a task near those of the others."""
    option = run.tasks[task].scale_option
    if option is not None and run.tasks[task].kind.scale is None:
        return f"Set tasks.{task}.{option}: true"
    near = _first_weight(run, task) / ratio
    return f"With loss.weights.{task}: {near:.1g}, both start about equal; mtl-nlp compare shows whether that helps"
