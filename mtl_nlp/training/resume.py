"""The effect of a changed key of the recipe, such as a training argument, on a resumed run."""

from __future__ import annotations

from mtl_nlp.recipe.resume import OnResume, meaning_in_schema
from mtl_nlp.recipe.schema import Recipe

FREE_KEYS = {
    "model_init_kwargs.revision": OnResume.KEPT,
    # The state of the optimizer contains these values, for every parameter group.
    "training.learning_rate": OnResume.KEPT,
    "training.weight_decay": OnResume.KEPT,
    "training.adam_beta1": OnResume.KEPT,
    "training.adam_beta2": OnResume.KEPT,
    "training.adam_epsilon": OnResume.KEPT,
    # Each of these adds parameter groups to the optimizer.
    "training.head_learning_rate": OnResume.KEPT_IF_PRESENT,
    "training.adapter_learning_rate": OnResume.KEPT_IF_PRESENT,
    "training.layer_lr_decay": OnResume.KEPT_IF_PRESENT,
    "training.optim": OnResume.REFUSED,
    "training.optim_args": OnResume.REFUSED,
    "training.optim_target_modules": OnResume.REFUSED,
    "training.seed": OnResume.REORDERS,
    "training.data_seed": OnResume.REORDERS,
    "training.per_device_train_batch_size": OnResume.REORDERS,
    "training.max_tokens_per_batch": OnResume.REORDERS,
    "training.gradient_accumulation_steps": OnResume.REORDERS,
    "training.precision": OnResume.TAKES_EFFECT,
    "training.early_stopping_patience": OnResume.TAKES_EFFECT,
    "training.freeze_patience": OnResume.TAKES_EFFECT,
    "training.on_nonfinite": OnResume.TAKES_EFFECT,
}
"""Keys that the schema does not list: all fields that `MultitaskTrainingArguments` adds, and some others.

Any other field of `transformers.TrainingArguments` takes effect when a run resumes, as `Recipe.training` states:
Trainer reads its arguments at every start, and the state of a checkpoint overrides only arguments in this table.
"""


def meaning_of(key: str) -> OnResume:
    """Return the effect of a changed key of the recipe on a resumed run.

    Args:
        key: the path of the key, such as `training.seed`. The result is `TAKES_EFFECT` for a key that the schema does
            not have; an earlier release may have written the key.
    """
    free = FREE_KEYS.get(".".join(key.split(".")[:2]))
    if free is not None:
        return free
    try:
        return meaning_in_schema(key, Recipe)
    except KeyError:
        return OnResume.TAKES_EFFECT
