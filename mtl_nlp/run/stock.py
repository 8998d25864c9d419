"""The stock class of transformers that equals the model of one task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from mtl_nlp.modeling.encoders_multitask import encoder_arguments
from mtl_nlp.modeling.heads_multitask import stock_class_problem, stock_config
from mtl_nlp.modeling.modeling_multitask import MultitaskModel

_TEXT = [5, 6, 7, 8, 9, 5]
_EQUAL = {torch.float32: 1e-4, torch.float64: 1e-4}
"""The largest difference between equal logits, relative to the largest logit."""
_EQUAL_IN_HALF = 0.05


def as_stock_class(model: MultitaskModel, task_name: str, *, shares_weights: bool = False) -> PreTrainedModel:
    """Build the model of the encoder's family that has the encoder and the head of one task.

    Args:
        model: a multitask model in which the task has no adapter.
        task_name: the task.
        shares_weights: whether the result has the tensors of `model` instead of copies.

    Returns:
        An instance of `…ForTokenClassification` or `…ForSequenceClassification`.

    Raises:
        ValueError: if the head is not that of a stock class, or that class has a different encoder (Funnel).
    """
    task, text_config = model.tasks[task_name], model.config.text_config
    if (flaw := stock_class_problem(task, text_config)) is not None:
        raise ValueError(flaw)
    head = model.heads_by_task[task_name].stock
    stock = type(head)(stock_config(task, text_config)).to(model.dtype)
    encoder = {f"{stock.base_model_prefix}.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    # For families with a pooler, the head's state contains the pooler under its name in the encoder.
    state = encoder | head.state_dict()
    own = stock.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != tensor.shape for name, tensor in state.items()):
        raise ValueError(f"the encoder of {type(stock).__name__} is not that of {type(model.encoder).__name__}")
    stock.load_state_dict(state, assign=shares_weights)
    return stock.eval()


@torch.no_grad()
def check_same_logits(
    model: MultitaskModel,
    stock: PreTrainedModel,
    task_name: str,
    batch: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Check that a model of a stock class computes the logits of a task.

    Args:
        model: the multitask model.
        stock: the result of `as_stock_class`.
        task_name: the task.
        batch: `input_ids` and the other inputs of texts, shape (rows, length); None for one short text.

    Raises:
        ValueError: if the logits differ, as for texts in CANINE, whose class reads states of the encoder's middle.
    """
    was_training, device = model.training, stock.device
    if batch is None:
        batch = {"input_ids": torch.tensor([_TEXT]), "attention_mask": torch.ones(1, len(_TEXT), dtype=torch.long)}
    read = encoder_arguments(model.encoder) & encoder_arguments(stock) | {"input_ids", "attention_mask"}
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name in read}
    ours = model.eval()(**inputs, tasks=[task_name]).logits[task_name].float()
    model.train(was_training)
    theirs = model.tasks[task_name].kind.in_units(stock.to(model.device)(**inputs).logits).float()
    stock.to(device)
    equal = _EQUAL.get(model.dtype, _EQUAL_IN_HALF) * float(ours.abs().max())
    if ours.shape != theirs.shape or float((ours - theirs).abs().max()) > equal:
        raise ValueError(f"{type(stock).__name__} computes other logits than the model")
