"""The adapters of a recipe: their checks, their addition to a model, and the parts that are not trained."""

from __future__ import annotations

import torch
from peft import LoraConfig
from transformers import AutoModel, PreTrainedConfig

from mtl_nlp.balancing.pull import check_pull
from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.adapters_multitask import SHARED, adapter_parameters
from mtl_nlp.modeling.lora_multitask import adapter_options, inject_adapter
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.sections import AdapterRecipe


def lora_config(recipe: AdapterRecipe) -> LoraConfig:
    """Return PEFT's configuration of a recipe's adapters, which is the same for all of them."""
    return LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.target_modules,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
    )


def check_encoder(recipe: Recipe, text_config: PreTrainedConfig) -> None:
    """Check that an encoder can be built and that a recipe's adapters fit it, before its weights are loaded.

    Args:
        recipe: the recipe.
        text_config: the encoder's configuration.

    Raises:
        RecipeError: if the encoder cannot be built, an adapter does not fit it, or PEFT is too old.
    """
    with torch.device("meta"):
        try:
            encoder = AutoModel.from_config(text_config)
        except ValueError as error:
            raise RecipeError(f"encoder: {recipe.encoder} cannot be built: {one_line(error)}") from error
        if recipe.adapters is not None:
            try:
                inject_adapter(encoder, SHARED, adapter_options(encoder, lora_config(recipe.adapters)))
            except ValueError as error:
                raise RecipeError(f"adapters: {error}") from error


def adapt(model: MultitaskModel, recipe: Recipe) -> None:
    """Add a recipe's adapters to a model, and exclude parts from training as the recipe says.

    A task that already has an adapter with the same options keeps it.

    Args:
        model: the model, which is changed in place.
        recipe: the recipe.

    Raises:
        RecipeError: if a part to freeze does not exist, an adapter exists with different options, or nothing is left to
            train.
    """
    adapters = recipe.adapters
    if adapters is not None:
        existing = {each["name"]: each for each in model.config.adapters or ()}
        try:
            options = adapter_options(model.encoder, lora_config(adapters))
            for name in [*([SHARED] if adapters.shared else []), *recipe.adapted_tasks]:
                if name not in existing:
                    model.add_adapter(lora_config(adapters), name)
                elif existing[name] != {"name": name, **options}:
                    raise ValueError(f"{name} has one from {recipe.encoder}, {existing[name]}. Found {options}.")
            if adapters.pull:
                check_pull(model)
        except ValueError as error:
            raise RecipeError(f"adapters: {error}") from error
        if not adapters.train_encoder:
            for parameter in set(model.encoder.parameters()) - set(adapter_parameters(model.encoder)):
                parameter.requires_grad_(False)
    try:
        model.freeze(*recipe.freeze)
    except ValueError as error:
        raise RecipeError(f"freeze: {error}") from error
    for name in recipe.tasks:
        if not any(parameter.requires_grad for parameter in model.parameters_of(name)) and "encoder" in recipe.freeze:
            raise RecipeError(f"freeze: nothing is left to train for {name}.")
