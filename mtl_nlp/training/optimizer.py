"""Parameter groups of an optimizer: separate learning rates, and the parameters of a loss weighting."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.modeling.layers_multitask import parameters_by_depth


def set_learning_rate(
    optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], learning_rate: float
) -> None:
    """Give some parameters of an optimizer a separate learning rate, before the first step.

    Args:
        optimizer: the optimizer. Each group is split in two, which keeps other settings such as weight decay.
        parameters: the parameters. Parameters that the optimizer does not have (frozen parameters) are ignored.
        learning_rate: the learning rate.
    """
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        taken = [parameter for parameter in group["params"] if id(parameter) in chosen]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        optimizer.add_param_group({**group, "params": taken, "lr": learning_rate})


def decay_by_layer(optimizer: torch.optim.Optimizer, encoder: torch.nn.Module, factor: float) -> None:
    """Give the layers of an encoder learning rates that fall with the distance from the last layer.

    The last of L layers keeps its rate, each other layer has the rate of the layer above times `factor`, and the
    embeddings have the lowest rate, `factor` ** L times the rate of the last layer (layer-wise decay, Clark et al.
    2020, section 3.1; discriminative fine-tuning, Howard and Ruder 2018, equation 2). Adapters and what is behind the
    layers keep their rates.

    Args:
        optimizer: the optimizer, before the first step. Each of its groups is split by layer, in the order from the
            layer below the last down to the embeddings, without empty groups, so that equal models have equal groups.
        encoder: the encoder. Frozen parameters, which the optimizer does not have, are ignored.
        factor: the factor, above 0 and at most 1.

    Raises:
        ValueError: if the layers of the encoder are unknown, see `layers_of`.
    """
    *lower, _last, _rest = parameters_by_depth(encoder)
    groups = list(optimizer.param_groups)
    for distance, parameters in enumerate(reversed(lower), start=1):
        chosen = {id(parameter) for parameter in parameters}
        for group in groups:
            taken = [parameter for parameter in group["params"] if id(parameter) in chosen]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
            if taken:
                optimizer.add_param_group({**group, "params": taken, "lr": group["lr"] * factor**distance})


def check_weighting(weighting: LossWeighting, *, is_sharded: bool) -> None:
    """Check that an optimizer can have the parameters of a loss weighting.

    Args:
        weighting: the loss weighting.
        is_sharded: whether the model's parameters are sharded (FSDP, DeepSpeed).

    Raises:
        ValueError: if the parameters of the model are sharded, and the weighting has trainable parameters or needs the
            norms of gradients.
    """
    if is_sharded and "gradient_norms" in weighting.needs:
        raise ValueError(
            f"FSDP and DeepSpeed shard the weights whose gradients the loss weighting {type(weighting).__name__} "
            f"measures. Train without FSDP and DeepSpeed."
        )
    if is_sharded and any(parameter.requires_grad for parameter in weighting.parameters()):
        raise ValueError(
            f"FSDP and DeepSpeed need an optimizer with only the parameters of the model, and the loss weighting "
            f"{type(weighting).__name__} has trainable parameters. Train without FSDP and DeepSpeed."
        )


def include_weighting(
    optimizer: torch.optim.Optimizer, weighting: LossWeighting, learning_rate: float, *, is_new: bool
) -> None:
    """Add the parameters of a loss weighting to a new optimizer, as a group without weight decay.

    Args:
        optimizer: the optimizer.
        weighting: the loss weighting; its own `learning_rate` takes precedence.
        learning_rate: the learning rate of the training arguments.
        is_new: whether the trainer has just created the optimizer. Nothing is added to an existing optimizer.

    Raises:
        ValueError: if an existing optimizer does not have the parameters.
    """
    trained = [parameter for parameter in weighting.parameters() if parameter.requires_grad]
    if is_new and trained:
        rate = learning_rate if weighting.learning_rate is None else weighting.learning_rate
        optimizer.add_param_group({"params": trained, "lr": rate, "weight_decay": 0.0})
    included = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if any(id(parameter) not in included for parameter in trained):
        raise ValueError(
            f"`optimizers`: the optimizer should have the parameters of the loss weighting "
            f"{type(weighting).__name__}. Add a group with these parameters, or leave out `optimizers`."
        )
