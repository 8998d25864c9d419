"""Settings that the number of tasks decides, for a training that does not give them.

The values were chosen on the validation splits of four corpora, see `recipes/README.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtl_nlp.training.arguments import MultitaskTrainingArguments

HEAD_FACTOR = 5.0
"""The learning rate of the new layers divided by `learning_rate`, in a model of several tasks."""


def head_learning_rate(args: MultitaskTrainingArguments, tasks: Sequence[str]) -> float | None:
    """Return the learning rate of the new layers of the heads; None if they have no rate of their own.

    New layers start from random weights and pretrained layers do not. A task whose head learns slowly sends gradients
    of little use to the encoder that all tasks share. A model of one task has one rate, like the stock classes.

    Args:
        args: the training arguments.
        tasks: the names of the model's tasks.
    """
    if args.head_learning_rate is None and len(tasks) > 1:
        return HEAD_FACTOR * args.learning_rate
    return args.head_learning_rate


def describe_defaults(args: MultitaskTrainingArguments, tasks: Sequence[str]) -> list[str]:
    """Return a line for each setting that the number of tasks has decided, with the reason and the key to change it.

    Args:
        args: the training arguments.
        tasks: the names of the model's tasks.
    """
    if args.head_learning_rate is not None or len(tasks) < 2:
        return []
    return [
        f"training.head_learning_rate: {head_learning_rate(args, tasks):g}, {HEAD_FACTOR:g} times learning_rate, since "
        f"the heads of {len(tasks)} tasks start from random weights"
    ]
