"""Settings that a recipe does not give and that its tasks decide, with their reasons for the plan."""

from __future__ import annotations

from typing import NamedTuple

from mtl_nlp.modeling.encoders_multitask import default_pooling
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.defaults import HEAD_FACTOR, default_loss_weights, head_learning_rate


class Default(NamedTuple):
    """A setting that the tasks of a recipe have decided.

    Attributes:
        key: the key of the recipe that changes the setting.
        value: the value.
        reason: the reason, in sentences.
    """

    key: str
    value: str
    reason: str

    def describe(self) -> str:
        """Return the setting and its reason in one line."""
        return f"{self.key} is {self.value}. {self.reason}"


def chosen_defaults(run: Run, arguments: MultitaskTrainingArguments) -> list[Default]:
    """Return the settings that several tasks decide and that a recipe does not give.

    Args:
        run: the run.
        arguments: the training arguments of the run.
    """
    recipe = run.recipe
    trained = {name: task for name, task in run.tasks.items() if name in recipe.tasks}
    text_config = run.config.text_config
    has_first = default_pooling(text_config) == "cls"
    of_words = "Other tasks label words, and beside such tasks the mean of all sub-words serves better than the first."
    of_family = f"In a {text_config.model_type} encoder, no first sub-word stands for the text."
    found = [
        Default(f"tasks.{name}.pooling", f"{task.pooled_by}", of_words if has_first else of_family)
        for name, task in trained.items()
        if task.pooled_by not in {None, "cls", recipe.task(name).pooled_by} and name not in run.trained_heads
    ]
    new = [name for name in trained if name not in run.trained_heads]
    if arguments.head_learning_rate is None and len(trained) > 1 and new:
        of = f", of the new heads ({', '.join(new)})" if len(new) < len(trained) else ""
        rate = f"{head_learning_rate(arguments, trained):g}, {HEAD_FACTOR:g} times learning_rate{of}"
        reason = (
            "A head starts from random weights, and misleads the encoder that the tasks share until it has learned."
        )
        found.append(Default("training.head_learning_rate", rate, reason))
    if recipe.loss.weighting == "static":
        reasons = {
            True: "Most words are outside of all spans, so the loss is small beside that of tasks on every word.",
            False: "A text has one label and many words, so the task overfits before the tasks on words have learned.",
        }
        found += [
            Default(f"loss.weights.{task}", f"{weight:g}", reasons[trained[task].finds_spans])
            for task, weight in default_loss_weights(trained).items()
            if task not in recipe.loss.weights
        ]
    return found
