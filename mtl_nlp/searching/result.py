"""The result of a search: `search.json`, and the recipe with the best settings, `best.yaml`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mtl_nlp.errors import DataError
from mtl_nlp.messages import Shown, json_text, one_line
from mtl_nlp.recipe.plain_yaml import dump_yaml
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run_folder import write_file
from mtl_nlp.searching.space import with_values

if TYPE_CHECKING:
    import pandas as pd

SEARCH_NAME = "search.json"
BEST_NAME = "best.yaml"
PAGE_NAME = "search.html"

_LOCK_NAME = ".search.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process start trials or write the result of a search inside this context.

    Args:
        folder: the folder of the search.
    """
    with FileLock(folder / _LOCK_NAME):
        yield


@dataclass(frozen=True, repr=False)
class SearchResult(Shown):
    """The result of a search.

    Attributes:
        folder: the folder of the search.
        content: the content of `search.json`.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def best(self) -> Path:
        """The recipe with the best settings, ready for training."""
        return self.folder / BEST_NAME

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per trial: its state, its values, its settings by key, its length and its scores."""
        import pandas as pd

        names = self.content["objectives"]
        rows = []
        for each in self.content["trials"]:
            values = dict(zip(names, each["values"] or [None] * len(names), strict=True))
            scores = {
                f"{task}_{name}": value for task, found in each["scores"].items() for name, value in found.items()
            }
            row = {"trial": each["number"], "state": each["state"], **values, **each["settings"], **scores}
            rows.append({**row, "seconds": each["seconds"], "reason": each["reason"]})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return "\n".join([f"SearchResult({self.folder})", *self.content["sentences"]])


def read_search(folder: Path) -> dict[str, Any]:
    """Read the content of `search.json`.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = folder / SEARCH_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({one_line(error)}). Repeat the search.") from error
    if not isinstance(content, dict) or "trials" not in content:
        raise DataError(f"{path} is damaged. Repeat the search.")
    return content


def choose_best(trials: Sequence[Mapping[str, Any]], *, is_minimized: bool) -> dict[str, Any] | None:
    """Return the best trial by its mean over fresh seeds, with the shrinkage of its score.

    A trial that was chosen since its score is high has had luck too, so that its score falls with fresh seeds. Only
    trials with the largest number of fresh seeds are compared; without any, the scores of the search decide.

    Args:
        trials: the trials, as in `search.json`.
        is_minimized: whether a lower value is better.

    Returns:
        The number of the trial; its `value` in the search; its `fresh` values by seed, their `mean`, and the
        `shrinkage` from `value` to `mean`, in the direction of the objective; the number of the trial that was `first`
        in the search; and `shipped`, the mean of the recipe as shipped. None if no trial is complete.
    """
    sign = -1.0 if is_minimized else 1.0
    done = [each for each in trials if each["state"] == "complete"]
    if not done:
        return None
    most = max(len(each["again"]) for each in done)
    candidates = [each for each in done if len(each["again"]) == most]

    def mean(each: Mapping[str, Any]) -> float:
        return statistics.mean(each["again"].values()) if each["again"] else each["values"][0]

    best = max(candidates, key=lambda each: (sign * mean(each), -each["number"]))
    first = max(done, key=lambda each: (sign * each["values"][0], -each["number"]))
    shipped = next((each for each in candidates if each["shipped"]), None)
    return {
        "number": best["number"],
        "value": best["values"][0],
        "fresh": dict(best["again"]),
        "mean": mean(best),
        "shrinkage": sign * (best["values"][0] - mean(best)),
        "first": first["number"],
        "first_shrinkage": sign * (first["values"][0] - mean(first)) if first["again"] else None,
        "shipped": None if shipped is None else mean(shipped),
    }


def write_best(
    folder: Path, recipe: Recipe, values: Mapping[str, Any], comments: Sequence[str], baselines: Mapping[str, Any]
) -> Path:
    """Write the recipe with the best settings, with comments on top.

    Args:
        folder: the folder of the search.
        recipe: the recipe as shipped.
        values: key -> value.
        comments: the lines on top.
        baselines: task -> the training arguments of its best model alone; empty if they were not searched.
    """
    written = with_values(recipe.as_written(), values)
    written.pop("search", None)
    written["output_dir"] = "best"
    if baselines:
        section = dict(written.get("baselines", {}))
        own = dict(section.get("tasks", {}))
        for task, training in baselines.items():
            own[task] = {**own.get(task, {}), "training": {**own.get(task, {}).get("training", {}), **training}}
        written["baselines"] = {**section, "tasks": own}
    lines = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    write_file(folder / BEST_NAME, f"{lines}\n{dump_yaml(written)}")
    return folder / BEST_NAME


def write_search(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `search.json`."""
    write_file(folder / SEARCH_NAME, json_text(content, indent=2) + "\n")
