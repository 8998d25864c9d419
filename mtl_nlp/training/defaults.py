"""Settings that the tasks decide, for a training that does not give them.

The values were chosen on the validation splits of four corpora, see `recipes/README.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments

HEAD_FACTOR = 5.0
"""The learning rate of the new layers divided by `learning_rate`, in a model of several tasks."""

TEXT_WEIGHT = 0.3
"""The loss weight of a task that labels texts, in a training with tasks that label words."""


def head_learning_rate(args: MultitaskTrainingArguments, tasks: Collection[str]) -> float | None:
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


def default_loss_weights(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Return the loss weights of tasks for which a training gives no weight, for a static weighting.

    A task on texts has one label per text, and a task on words has one label per word: the gradient of a text's label
    is noisier, and the task overfits sooner. Beside tasks on words, a task on texts has the weight `TEXT_WEIGHT`.

    Args:
        tasks: the trained tasks by name.

    Returns:
        The weights that differ from 1.
    """
    of_texts = [name for name, task in tasks.items() if not task.kind.labels_words]
    return dict.fromkeys(of_texts, TEXT_WEIGHT) if len(of_texts) < len(tasks) else {}
