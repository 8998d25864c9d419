"""`results.json`: the scores of a run and where they come from."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mtl_nlp._version import __version__
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import Evaluation

_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers")


def results(
    split: str,
    evaluation: Evaluation,
    datasets: Mapping[str, EncodedDataset],
    recipe_sha256: str,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        split: which split was scored.
        evaluation: its scores.
        datasets: the encoded datasets it was scored on.
        recipe_sha256: fingerprint of the recipe.
        training: how the model was trained, see `MultitaskTrainer.describe_training`; None if that is not known.
    """
    return {
        "split": split,
        "tasks": evaluation.scores,
        "mtl_score": evaluation.mtl_score,
        **({} if training is None else {"training": training}),
        "provenance": {
            "mtl_nlp": __version__,
            "versions": {library: version(library) for library in _LIBRARIES},
            "commit": _commit(),
            "recipe_sha256": recipe_sha256,
            "data_fingerprints": {encoded.name: encoded.fingerprint for encoded in datasets.values()},
        },
    }


def _commit() -> str | None:
    """The git commit of the working folder, if it is in a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
