"""What a changed key of a recipe means for a resumed run, including the training arguments."""

from __future__ import annotations

from mtl_nlp.recipe.resume import OnResume, meaning_in_schema
from mtl_nlp.recipe.schema import Recipe

FREE_KEYS = {
    "model_init_kwargs.revision": OnResume.KEPT,
    # The optimizer's state holds these, for every group of parameters.
    "training.learning_rate": OnResume.KEPT,
    "training.weight_decay": OnResume.KEPT,
    "training.adam_beta1": OnResume.KEPT,
    "training.adam_beta2": OnResume.KEPT,
    "training.adam_epsilon": OnResume.KEPT,
    # With these a group of its own is added to the optimizer.
    "training.head_learning_rate": OnResume.KEPT_IF_PRESENT,
    "training.adapter_learning_rate": OnResume.KEPT_IF_PRESENT,
    "training.optim": OnResume.REFUSED,
    "training.optim_args": OnResume.REFUSED,
    "training.optim_target_modules": OnResume.REFUSED,
    "training.seed": OnResume.REORDERS,
    "training.data_seed": OnResume.REORDERS,
    "training.per_device_train_batch_size": OnResume.REORDERS,
    "training.max_tokens_per_batch": OnResume.REORDERS,
    "training.gradient_accumulation_steps": OnResume.REORDERS,
    "training.early_stopping_patience": OnResume.TAKES_EFFECT,
}
"""The free keys of a recipe: all own fields of `MultitaskTrainingArguments`, and other keys with their own meaning.

Any other field of `transformers.TrainingArguments` takes effect when a run resumes, as `Recipe.training` says: Trainer
reads its arguments at every start, and a checkpoint's state overrides none of those that are not listed here.
"""


def meaning_of(key: str) -> OnResume:
    """Return what a change of a recipe's key means for a resumed run.

    Args:
        key: the key's path, such as `training.seed`. A key that the schema does not have, which an earlier release may
            have written, takes effect by its removal.
    """
    free = FREE_KEYS.get(".".join(key.split(".")[:2]))
    if free is not None:
        return free
    try:
        return meaning_in_schema(key, Recipe)
    except KeyError:
        return OnResume.TAKES_EFFECT
