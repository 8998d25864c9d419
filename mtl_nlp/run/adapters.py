"""Adapters in training: those that a recipe asks for, how far they are apart, and what is trained."""

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
    """PEFT's configuration of every adapter that a recipe asks for."""
    return LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.target_modules,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
    )


def check_encoder(recipe: Recipe, text_config: PreTrainedConfig) -> None:
    """See that an encoder can be built and a recipe's adapters fit it, before more than its configuration is loaded.

    Raises:
        RecipeError: if not, or PEFT is too old.
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
    """Give a model the adapters of a recipe, and leave out of training what it says.

    A task of the model that has such an adapter from before keeps it.

    Raises:
        RecipeError: if a part to freeze is not there, an adapter is there with other options, or nothing is left to
            train.
    """
    adapters = recipe.adapters
    if adapters is not None:
        there = {each["name"]: each for each in model.config.adapters or ()}
        try:
            options = adapter_options(model.encoder, lora_config(adapters))
            for name in [*([SHARED] if adapters.shared else []), *recipe.adapted_tasks]:
                if name not in there:
                    model.add_adapter(lora_config(adapters), name)
                elif there[name] != {"name": name, **options}:
                    raise ValueError(f"{name} has one from {recipe.encoder}, {there[name]}. Found {options}.")
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
