"""The mends of faults, taken out in the process of a case: the functions restore the behaviour before each mend.

The sandbox must then report the fault. Only the process of a case may import this module and call its functions.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pickle import UnpicklingError
from types import TracebackType
from typing import Any

import guard
import yaml
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from mtl_nlp import run_folder
from mtl_nlp.hub.outside import Loading
from mtl_nlp.modeling.tasks_multitask import TASK_TYPES
from mtl_nlp.modeling.windows_multitask import tokenize_words
from mtl_nlp.recipe import variables
from mtl_nlp.recipe.file import read_yaml
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.training.divergence import DivergenceWatch
from mtl_nlp.training.watching import WatchingTrainer

_REPORTED = (OSError, ValueError, UnpicklingError, SafetensorError)
"""The errors of the libraries that the first releases reported in one line."""


def take_out(*names: str) -> None:
    """Replace functions by a function that does nothing.

    Args:
        *names: the functions, such as `hub.outside.check_size`.
    """
    for name in names:
        replace(name, lambda *args, **kwargs: None)


def replace(name: str, new: Callable[..., Any]) -> None:
    """Replace a function in every module of mtl_nlp that has imported the function.

    Args:
        name: the function, such as `hub.outside.check_size`.
        new: the function that takes its place.
    """
    module, _, attribute = f"mtl_nlp.{name}".rpartition(".")
    old = vars(importlib.import_module(module))[attribute]
    for namespace in [vars(each) for key, each in sys.modules.items() if key.startswith("mtl_nlp.")]:
        if namespace.get(attribute) is old:
            namespace[attribute] = new


def report_few_errors() -> None:
    """Let only the errors in `_REPORTED` become messages when the files of a model or a checkpoint are read."""
    report = Loading.__exit__

    def report_some(
        self: Loading, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, _REPORTED):
            report(self, kind, error, traceback)

    Loading.__exit__ = report_some


def shorten_hangs() -> None:
    """Lower the limit of the CPU time, so that a hang takes few seconds."""
    guard.CPU_SECONDS = 5


def trust_tasks() -> None:
    """Build tasks as if all values in `config.json` had the right types."""

    def task_from_dict(fields: dict[str, Any]) -> Any:
        fields = dict(fields)
        return TASK_TYPES[fields.pop("type")](**fields)

    replace("modeling.tasks_multitask.task_from_dict", task_from_dict)


def trust_results() -> None:
    """Use `results.json` as if all values had the right types."""
    run_folder._Results.model_validate = lambda content: content


def trust_trainer_state() -> None:
    """Read the state of a checkpoint's trainer as if the state had the right form."""
    replace(
        "training.restoring.read_trainer_state",
        lambda checkpoint: TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)),
    )


def trust_settings() -> None:
    """Read the recipe of a checkpoint as if the recipe had the right form."""
    replace(
        "training.restoring.read_settings",
        lambda checkpoint: yaml.safe_load((checkpoint / run_folder.RECIPE_NAME).read_text(encoding="utf-8")),
    )


def watch_nothing() -> None:
    """Train on, and save the model, with losses, gradients and weights that are not finite."""
    DivergenceWatch.protect = WatchingTrainer._raise_if_diverged = lambda *args: None
    del WatchingTrainer.log
    take_out("modeling.weights_multitask.check_finite")
    # The report refuses predictions that are not finite, and the case should end with a saved model.
    replace("evaluation.predictions.read_predictions", lambda path: {})


def truncate_with_the_tokenizer() -> None:
    """Truncate pairs with the tokenizer, which builds every combination of truncated pieces."""

    def truncate(tokenizer: PreTrainedTokenizerBase, texts: Any, pairs: Any = None, **options: Any) -> Any:
        if pairs is not None:
            tokenizer(texts, pairs, is_split_into_words=True, truncation=True, max_length=options["max_length"])
        return tokenize_words(tokenizer, texts, pairs, **options)

    replace("modeling.windows_multitask.tokenize_words", truncate)


def name_adapters_like_tasks() -> None:
    """Keep brackets and backslashes of a task in the name of its adapter, and so in the names of weights."""
    replace(
        "modeling.adapters_multitask.peft_adapter_name",
        lambda name: name if name == "shared" else "task_" + name.replace("%", "%25").replace(".", "%2E"),
    )


def write_values_of_variables() -> None:
    """Expand the variables in all sections of a recipe, also in the recipe of a model, and write their values."""
    replace("recipe.variables.expand", lambda data: variables._expand(data, ""))
    Recipe.as_written = lambda self: self.model_dump(exclude_defaults=True)
    SavedRecipe.read = lambda path: SavedRecipe.model_validate(variables._expand(read_yaml(path, ()), ""))
