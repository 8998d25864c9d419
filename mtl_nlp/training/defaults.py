"""Settings that the tasks decide, for a training that does not give them.

The values were chosen on the validation splits of four corpora, see `recipes/README.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.modeling.heads_multitask import TaskHead
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import LossWeight, check_weight_is_left
from mtl_nlp.training.arguments import MultitaskTrainingArguments

HEAD_FACTOR = 20.0
"""The learning rate of the new layers divided by `learning_rate`, in a model of several tasks."""

TEXT_WEIGHT = 0.6
"""The loss weight of a task that labels texts, in a training with tasks that label words."""

SPAN_WEIGHT = 3.0
"""The loss weight of a task that finds spans of words, in a training with tasks that label every word."""


def head_learning_rate(
    args: MultitaskTrainingArguments, tasks: Collection[str], learning_rate: float | None = None
) -> float | None:
    """Return the learning rate of the new layers of the heads; None if they have no rate of their own.

    New layers start from random weights and pretrained layers do not. A task whose head learns slowly sends gradients
    of little use to the encoder that all tasks share. A model of one task has one rate, like the stock classes. See
    `heads_with_rate` for the heads that have the rate.

    Args:
        args: the training arguments.
        tasks: the names of the trained tasks.
        learning_rate: the learning rate of the pretrained layers; that of the arguments by default.
    """
    if args.head_learning_rate is None and len(tasks) > 1:
        return HEAD_FACTOR * (learning_rate or args.learning_rate)
    return args.head_learning_rate


def heads_with_rate(args: MultitaskTrainingArguments, model: MultitaskModel) -> list[TaskHead]:
    """Return the heads to which `head_learning_rate` applies.

    A given rate is that of all heads. The default rate is that of heads that start from random weights: the head of a
    loaded model is trained as far as its encoder.
    """
    is_given = args.head_learning_rate is not None
    return [head for name, head in model.heads_by_task.items() if is_given or name not in model.trained_heads]


def default_loss_weights(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Return the loss weights of tasks for which a training gives no weight, for a static weighting.

    A task on texts has one label per text, and a task on words has one label per word: the gradient of a text's label
    is noisier, and the task overfits sooner. Beside tasks on words, a task on texts has the weight `TEXT_WEIGHT`.

    Most words are outside of all spans and easy, so that the mean loss of a task on spans is several times smaller than
    that of a task on every word. Beside such a task, a task on spans has the weight `SPAN_WEIGHT`.

    Args:
        tasks: the trained tasks by name.

    Returns:
        The weights that differ from 1.
    """
    of_words = {name for name, task in tasks.items() if task.kind.labels_words}
    of_spans = {name for name in of_words if tasks[name].finds_spans}
    weights = {}
    for name in tasks:
        if name in of_spans and of_spans != of_words:
            weights[name] = SPAN_WEIGHT
        elif name not in of_words and of_words:
            weights[name] = TEXT_WEIGHT
    return weights


def loss_weighting_of(
    args: MultitaskTrainingArguments,
    tasks: Mapping[str, Task],
    trained: Mapping[str, Task],
    given: LossWeighting | None,
) -> LossWeighting:
    """Return the loss weighting of a training: the given one, or the weights of the arguments and the default weights.

    Args:
        args: the training arguments.
        tasks: the model's tasks by name.
        trained: the trained tasks by name.
        given: a loss weighting that replaces `loss_weights`.

    Raises:
        ValueError: if `loss_weights` names an unknown task, is 0 for all trained tasks, or is given together with a
            weighting.
    """
    weights = cast("dict[str, LossWeight]", args.loss_weights or {})
    if unknown := set(weights) - set(tasks):
        raise ValueError(f"`loss_weights` should name tasks of the model ({', '.join(tasks)}). Found {unknown}.")
    check_weight_is_left(weights, trained)
    if given is None:
        return Static({**default_loss_weights(trained), **weights})
    if weights:
        raise ValueError(
            "`loss_weights` are the weights of a static weighting and exclude a `loss_weighting`. Leave out one of the "
            "two."
        )
    return given
