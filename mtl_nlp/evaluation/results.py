"""The content of `results.json`: the scores of a run and their provenance."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mtl_nlp._version import __version__
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.messages import table

_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers")


def results(
    split: str,
    evaluation: Evaluation,
    datasets: Mapping[str, EncodedDataset],
    recipe_sha256: str,
    training: Mapping[str, Any] | None = None,
    own_code: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of `results.json`.

    Args:
        split: the split that was scored.
        evaluation: the scores of the split.
        datasets: the encoded datasets that the scores are from.
        recipe_sha256: the fingerprint of the recipe.
        training: the description of the training, see `MultitaskTrainer.describe_training`; None if unknown.
        own_code: the hash of each module that the recipe imports, see `Recipe.own_code`.
    """
    return {
        "split": split,
        "tasks": evaluation.scores,
        "mtl_score": evaluation.mtl_score,
        **({"frames": evaluation.frames} if evaluation.frames else {}),
        **({} if training is None else {"training": training}),
        "provenance": provenance(datasets, recipe_sha256, own_code),
    }


def provenance(
    datasets: Mapping[str, EncodedDataset], recipe_sha256: str, own_code: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the origin of scores: versions, commit, recipe, its own code if it has any, and data.

    Args:
        datasets: the encoded datasets that the scores are from.
        recipe_sha256: the fingerprint of the recipe.
        own_code: the hash of each module that the recipe imports, see `Recipe.own_code`.
    """
    return {
        "mtl_nlp": __version__,
        "versions": {library: version(library) for library in _LIBRARIES},
        "commit": _commit(),
        "recipe_sha256": recipe_sha256,
        **({"own_code": dict(own_code)} if own_code else {}),
        "data_fingerprints": {encoded.name: encoded.fingerprint for encoded in datasets.values()},
    }


def describe_scores(evaluation: Evaluation, split: str) -> str:
    """Return the scores as a table.

    Args:
        evaluation: the scores.
        split: the split that was scored.
    """
    rows = [
        (task, name, f"{value:.4f}") for task, values in evaluation.scores.items() for name, value in values.items()
    ]
    rows.append(("all", "mtl_score", f"{evaluation.mtl_score:.4f}"))
    shown = table(("task", f"{split} score", "value"), rows)
    frames = [
        f"frame accuracy of {name}, the share of texts with the right class and all spans right: {value:.4f}"
        for name, value in evaluation.frames.items()
    ]
    return "\n".join([shown, *frames])


def _commit() -> str | None:
    """Return the git commit of the working folder, or None outside of a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
