"""The result of measuring who helps whom, and its folder: `affinity.json`, a recipe per group, and `groups.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.recipe.plain_yaml import dump_yaml
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.reduction import Exposure, reduce_recipe
from mtl_nlp.run_folder import RECIPE_NAME, write_file
from mtl_nlp.transfer.grouping import Group

if TYPE_CHECKING:
    import pandas as pd

AFFINITY_NAME = "affinity.json"
PAGE_NAME = "affinity.html"
GROUPS_NAME = "groups.yaml"
PAIRS = "pairs"
"""The folder of the runs of `--pairwise`."""

_GROUP = "group-"
_KEYS = ("key", "method", "tasks", "effects", "groupings", "groups")


@dataclass(frozen=True)
class Affinity:
    """The effects of a recipe's tasks on each other, and the proposed groups.

    Attributes:
        folder: the folder with the recipes of the groups and `groups.yaml`.
        content: the content of `affinity.json`.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def groups(self) -> list[dict[str, list[str]]]:
        """The proposed groups: the `tasks` that are trained together, and those that the group `serves`."""
        return list(self.content["groups"])

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per helping task and task: the mean effect, its 95 % interval and the word."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"helper": helper, "task": task, **effect}
                for helper, effects in self.content["effects"].items()
                for task, effect in effects.items()
            ]
        )

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False)


def check_folder(folder: Path) -> None:
    """Check that a folder is new, empty, or has measured affinities and nothing else.

    Raises:
        CommandError: if the folder has other files.
    """
    if folder.is_file():
        raise CommandError(f"--output: {folder} is a file. Name a folder.")
    own = {AFFINITY_NAME, PAGE_NAME, GROUPS_NAME, RECIPE_NAME, PAIRS}
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        if name not in own and not name.startswith((".", _GROUP)):
            raise CommandError(
                f"--output: {folder} holds files that `affinity` has not written, such as {name}. Choose a new or "
                f"empty folder."
            )


def read_affinity(folder: Path) -> dict[str, Any]:
    """Return the content of `affinity.json`; an empty dict without the file.

    Raises:
        DataError: if the file is damaged.
    """
    path = folder / AFFINITY_NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or (missing := [key for key in _KEYS if key not in content]):
            raise ValueError(f"`{missing[0]}` is missing" if isinstance(content, dict) else "expected an object")
    except ValueError as error:
        raise DataError(f"{path} is damaged ({one_line(error)}). Delete the file, and measure again.") from error
    return content


def write_affinity(
    folder: Path, content: Mapping[str, Any], recipe: Recipe, groups: Sequence[Group], used: Mapping[str, Exposure]
) -> None:
    """Write `affinity.json`, the complete recipe, a recipe per group, and `groups.yaml` for `mtl-nlp compare`.

    Args:
        folder: the folder.
        content: the content of `affinity.json`.
        recipe: the complete recipe.
        groups: the proposed groups.
        used: the use of each dataset in the training of the complete recipe.
    """
    for old in folder.glob(f"{_GROUP}*.yaml"):
        old.unlink()
    write_file(folder / RECIPE_NAME, recipe.to_yaml())
    of_groups = {}
    for number, group in enumerate(groups, start=1):
        name = f"{_GROUP}{number}"
        write_file(folder / f"{name}.yaml", _head(group) + dump_yaml(_recipe_of(recipe, group, used, name)))
        of_groups[name] = {"recipe": f"{name}.yaml", "serves": list(group.serves)}
    head = "# Train the groups, and compare them with one encoder for all tasks and with a model per task:\n"
    head += f"# mtl-nlp compare {RECIPE_NAME} {GROUPS_NAME}\n"
    write_file(folder / GROUPS_NAME, head + dump_yaml({"recipe": RECIPE_NAME, "groups": of_groups}))
    write_file(folder / AFFINITY_NAME, json_text(content, indent=2) + "\n")


def _head(group: Group) -> str:
    helpers = [task for task in group.tasks if task not in group.serves]
    helped = f"; {', '.join(helpers)} only help" + ("s" if len(helpers) == 1 else "") if helpers else ""
    return f"# A group of tasks that `mtl-nlp affinity` proposes. Serves {', '.join(group.serves)}{helped}.\n"


def _recipe_of(recipe: Recipe, group: Group, used: Mapping[str, Exposure], name: str) -> dict[str, Any]:
    """Return the recipe of a group, which trains its tasks as the complete recipe trains them."""
    written = recipe.as_written()
    output = written.pop("output_dir")
    if len(group.tasks) < len(recipe.tasks):
        written = reduce_recipe(written, group.tasks, used, alone=False)
    return {"encoder": written.pop("encoder"), "output_dir": f"{output}-{name}", **written}
