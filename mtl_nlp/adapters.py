"""Adapters in training: those that a recipe asks for, how far they are apart, and what is trained."""

from __future__ import annotations

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from mtl_nlp.messages import one_line
from mtl_nlp.modeling.adapters_multitask import (
    SHARED,
    adapter_options,
    adapter_parameters,
    inject_adapter,
    internal_name,
    low_rank_factors,
    mixes_rows,
)
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe import Recipe, RecipeError
from mtl_nlp.recipe_sections import AdapterRecipe
from mtl_nlp.training_args import MultitaskTrainingArguments


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


def check_pull(model: MultitaskModel) -> None:
    """See that a model has adapters that can be pulled towards each other.

    Raises:
        ValueError: if there are fewer than two, or they are no LoRAs.
    """
    own = [options for options in model.config.adapters or () if options["name"] != SHARED]
    if len(own) < 2:
        raise ValueError(f"`pull` draws the adapters of tasks towards each other, and needs two. Found {len(own)}.")
    if any(options["use_dora"] for options in own):
        raise ValueError("`pull` is of LoRA: the change of a DoRA adapter is no product of two factors.")


def check_adapter_arguments(model: MultitaskModel, args: MultitaskTrainingArguments, *, is_sharded: bool) -> None:
    """See that what is asked for of adapters goes with a model's.

    Args:
        model: the model.
        args: the training arguments.
        is_sharded: whether parameters are (FSDP).

    Raises:
        ValueError: if there are none, they cannot be pulled, or they take a pass each and parameters are sharded:
            processes with other tasks would make other numbers of passes, and wait for each other.
    """
    if args.adapter_learning_rate is not None and not model.adapter_names:
        raise ValueError("`adapter_learning_rate` is of adapters, and the model has none.")
    if args.adapter_pull:
        check_pull(model)
    if is_sharded and not mixes_rows(model.config.text_config, model.config.adapters or ()) and model.adapter_names:
        raise ValueError(
            "FSDP: DoRA adapters, and those of a DeBERTa encoder, take an encoder pass each, and processes would wait "
            "for each other's. Train without FSDP."
        )


def adapter_spread(model: MultitaskModel) -> torch.Tensor:
    """How far the tasks' adapters are apart: Σ_layers Σ_t ‖ΔW_t − mean_t ΔW_t‖²_F, a scalar in float32.

    ΔW_t = s_t B_t A_t is never built: ⟨ΔW_s, ΔW_t⟩ is the sum of the elementwise product of B_sᵀB_t and A_sA_tᵀ, and
    Σ_t ‖ΔW_t − mean‖² = Σ_t ⟨ΔW_t, ΔW_t⟩ − 1/T Σ_s,t ⟨ΔW_s, ΔW_t⟩. The shared adapter is left out, since it is the
    same for all.
    """
    names = [internal_name(name) for name in model.adapter_names if name != SHARED]
    total = torch.zeros((), device=model.device)
    with torch.autocast(model.device.type, enabled=False):
        for factors in low_rank_factors(model.encoder, names).values():
            down = torch.cat([of_task for of_task, _ in factors]).float()
            up = torch.cat([of_task for _, of_task in factors], dim=1).float()
            own = torch.block_diag(*[down.new_ones(len(of_task), len(of_task)) for of_task, _ in factors])
            total = total + ((down @ down.T) * (up.T @ up) * (own - 1.0 / len(names))).sum()
    return total


def describe_parameters(model: MultitaskModel) -> str:
    """What of a model is trained, a line."""

    def size(parameters: list[nn.Parameter], of_trained: bool = True) -> int:
        return sum(p.numel() for p in set(parameters) if p.requires_grad or not of_trained)

    every = list(model.parameters())
    trained, total = size(every), size(every, of_trained=False)
    if not model.adapter_names and trained == total:
        return f"{total:,} parameters, all of them trained."
    adapters = {name: adapter_parameters(model.encoder, [internal_name(name)]) for name in model.adapter_names}
    plain = list(set(model.encoder.parameters()) - set(adapter_parameters(model.encoder)))
    encoder = size(plain, of_trained=False)
    parts = [f"encoder {size(plain):,}"]
    parts += [
        f"adapter of {name} {size(own):,} ({size(own, of_trained=False) / encoder:.2%} of the encoder)"
        for name, own in adapters.items()
    ]
    parts.append(f"heads {size(list(model.heads.parameters())):,}")
    return f"{trained:,} of {total:,} parameters trained ({trained / total:.2%}): {', '.join(parts)}."
