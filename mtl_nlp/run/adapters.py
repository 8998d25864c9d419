"""Adapters and frozen parts of a recipe: checks, and changes to the model."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig
from transformers import PreTrainedConfig

from mtl_nlp.balancing.pull import check_pull
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.outside import Loading
from mtl_nlp.modeling.adapters_multitask import SHARED, adapter_parameters
from mtl_nlp.modeling.encoders_multitask import build_encoder
from mtl_nlp.modeling.layers_multitask import is_encoder_part
from mtl_nlp.modeling.lora_multitask import adapter_options, inject_adapter
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.sections import AdapterRecipe


def lora_config(recipe: AdapterRecipe) -> LoraConfig:
    """Return the PEFT configuration that all adapters of a recipe share."""
    return LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.target_modules,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
    )


def check_encoder(recipe: Recipe, text_config: PreTrainedConfig) -> None:
    """Check that an encoder can be built and that a recipe's adapters fit the encoder, before weights are loaded.

    Args:
        recipe: the recipe.
        text_config: the encoder's configuration.

    Raises:
        RecipeError: if the encoder cannot be built, an adapter does not fit the encoder, or PEFT is too old.
    """
    with torch.device("meta"):
        with Loading(RecipeError, f"encoder: {recipe.encoder}", "cannot be built"):
            encoder = build_encoder(copy.deepcopy(text_config))
        if recipe.adapters is not None:
            try:
                inject_adapter(encoder, SHARED, adapter_options(encoder, lora_config(recipe.adapters)))
            except ValueError as error:
                raise RecipeError(f"adapters: {error}") from error


def add_adapters(model: MultitaskModel, recipe: Recipe) -> None:
    """Add a recipe's adapters to a model.

    A task that already has an adapter with the same options keeps that adapter.

    Args:
        model: the model, which is changed in place.
        recipe: the recipe.

    Raises:
        RecipeError: if the adapters do not fit the model, or one exists with different options.
    """
    adapters = recipe.adapters
    if adapters is None:
        return
    existing = {each["name"]: each for each in model.config.adapters or ()}
    try:
        options = adapter_options(model.encoder, lora_config(adapters))
        for name in [*([SHARED] if adapters.shared else []), *recipe.adapted_tasks]:
            if name not in existing:
                model.add_adapter(lora_config(adapters), name)
            elif existing[name] != {"name": name, **options}:
                raise ValueError(
                    f"the adapter of {name} in {recipe.encoder} has different options, {existing[name]}. "
                    f"Found {options}. Use the options of the existing adapter."
                )
        if adapters.pull:
            check_pull(model)
    except ValueError as error:
        raise RecipeError(f"adapters: {error}") from error


def adapt(model: MultitaskModel, recipe: Recipe) -> None:
    """Add a recipe's adapters to a model, and freeze the parts that the recipe does not train.

    Args:
        model: the model, which is changed in place.
        recipe: the recipe.

    Raises:
        RecipeError: if the adapters do not fit the model, a part to freeze does not exist, or nothing is left to train.
    """
    add_adapters(model, recipe)
    if recipe.adapters is not None and not recipe.adapters.train_encoder:
        for parameter in set(model.encoder.parameters()) - set(adapter_parameters(model.encoder)):
            parameter.requires_grad_(False)
    try:
        model.freeze(*recipe.freeze)
    except ValueError as error:
        raise RecipeError(f"freeze: {error}") from error
    freezes_encoder = any(part == "encoder" or is_encoder_part(part) for part in recipe.freeze)
    is_encoder_trained = any(parameter.requires_grad for parameter in model.parameters_of("encoder"))
    for name in recipe.tasks if freezes_encoder and not is_encoder_trained else ():
        if not any(parameter.requires_grad for parameter in model.parameters_of(name)):
            raise RecipeError(
                f"freeze: nothing is left to train for {name}. Remove {name} or parts of the encoder from `freeze`."
            )
