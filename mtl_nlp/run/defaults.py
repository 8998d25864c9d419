"""Settings that a recipe does not give and that its tasks decide, with their reasons for the plan."""

from __future__ import annotations

from mtl_nlp.modeling.tasks_multitask import SequenceTask
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.defaults import HEAD_FACTOR, default_loss_weights, head_learning_rate


def describe_defaults(run: Run, arguments: MultitaskTrainingArguments) -> list[str]:
    """Return a line for each setting that the tasks have decided, with the reason and the key to change it.

    Args:
        run: the run.
        arguments: the training arguments of the run.
    """
    recipe = run.recipe
    trained = {name: task for name, task in run.tasks.items() if name in recipe.tasks}
    lines = [
        f"tasks.{name}.pooling is mean: the task labels texts beside tasks that label words"
        for name, task in trained.items()
        if isinstance(task, SequenceTask) and task.pools_mean and "pooling" not in recipe.tasks[name]
    ]
    if arguments.head_learning_rate is None and len(trained) > 1:
        rate = head_learning_rate(arguments, trained)
        lines.append(
            f"training.head_learning_rate is {rate:g}, {HEAD_FACTOR:g} times learning_rate: the heads of several tasks "
            f"start from random weights, and slow heads mislead the encoder"
        )
    if recipe.loss.weighting == "static":
        lines += [
            f"loss.weights.{task} is {weight:g}: the task labels texts beside tasks that label words, and overfits "
            f"before they have learned"
            for task, weight in default_loss_weights(trained).items()
            if task not in recipe.loss.weights
        ]
    return lines
