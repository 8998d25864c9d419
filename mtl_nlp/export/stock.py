"""The export of one task as a stock transformers model, which does not need this package."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mtl_nlp.errors import ExportError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.weights_multitask import NotFiniteError, check_finite
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.run.stock import as_stock_class, check_same_logits

_TOLERANCE = 0.01
"""The largest error of half precision, as a share of the deviation of the numbers."""
_TEXTS = ["a b c d e", "a"]
"""Texts of different lengths, so that the second text is padded."""


def check_exportable(model: MultitaskModel) -> None:
    """Check that the weights of a model are finite.

    Raises:
        ExportError: if a weight is NaN or infinite.
    """
    try:
        check_finite(model.named_parameters())
    except NotFiniteError as error:
        raise ExportError(f"The model cannot be exported. {error}") from error


def stock_model(
    model: MultitaskModel, task_name: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedModel:
    """Build the stock model of the encoder's family with the encoder and the head of one task.

    Args:
        model: the multitask model.
        task_name: the task.
        tokenizer: the tokenizer of the model, whose padding the stock class should recognise; None for the logits of
            texts without padding.

    Returns:
        An instance of `…ForTokenClassification` or `…ForSequenceClassification` that computes the same logits. The
        task's adapters are merged into its encoder, and the scale of a number into the last layer of its head. A model
        in half precision becomes float32 if half precision cannot hold such numbers, see `_fits`.

    Raises:
        ExportError: if the task does not exist, a weight is not finite, or the family's stock class does not compute
            the same logits.
    """
    check_exportable(model)
    if task_name not in model.tasks:
        raise ExportError(f"--task {task_name}: no such task. {did_you_mean(task_name, model.tasks)}")
    if model.adapters_of(task_name):
        model = model.merge_and_unload(task_name)
    try:
        stock = as_stock_class(model, task_name)
        check_same_logits(model, stock, task_name)
        if tokenizer is not None:
            _check_with_padding(model, stock, task_name, tokenizer)
    except ValueError as error:
        raise ExportError(f"--task {task_name}: {error}. Export it as ONNX: --format onnx.") from error
    if (scale := model.tasks[task_name].kind.scale) is not None:
        _fold(*scale, stock, task_name)
    return stock


@torch.no_grad()
def _fold(factor: float, offset: float, stock: PreTrainedModel, task_name: str) -> None:
    """Fold a scale of the outputs into the last linear layer of a stock model, in place.

    Raises:
        ExportError: if the layer is not known, or has no bias.
    """
    of_encoder = set(stock.base_model.modules())
    layers = [
        module
        for module in stock.modules()
        if isinstance(module, nn.Linear) and module not in of_encoder and module.out_features == stock.config.num_labels
    ]
    if len(layers) != 1 or layers[0].bias is None:
        raise ExportError(
            f"--task {task_name}: {type(stock).__name__} has no last layer with a bias, into which the mean and the "
            f"deviation of the numbers could be folded. Export it as ONNX: --format onnx."
        )
    weight, bias = layers[0].weight.float() * factor, layers[0].bias.float() * factor + offset
    if not _fits(factor, offset, weight, stock.dtype):
        stock.float()
    layers[0].weight.copy_(weight)
    layers[0].bias.copy_(bias)


def _fits(factor: float, offset: float, weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether a type holds numbers within ten deviations of their mean to 1 % of the deviation.

    The multitask model computes such numbers in float32, so float32 always fits.

    Args:
        factor: the deviation.
        offset: the mean.
        weight: the weights of the last layer with the deviation, float32, shape (1, hidden).
        dtype: the type.
    """
    limits = torch.finfo(dtype)
    if limits.bits >= 32:
        return True
    is_exact = (weight.to(dtype).float() - weight).norm() <= _TOLERANCE * weight.norm()  # NaN for infinite weights
    return bool(is_exact) and limits.eps * abs(offset) <= _TOLERANCE * factor and abs(offset) + 10 * factor < limits.max


def export_stock(
    model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, task_name: str, folder: Path
) -> torch.dtype:
    """Write the model of `stock_model` and the tokenizer to a folder.

    Args:
        model: the multitask model.
        tokenizer: the tokenizer of the model.
        task_name: the task.
        folder: the folder to write.

    Returns:
        The type of the weights, which is that of the model, or float32 for numbers that it cannot hold.

    Raises:
        ExportError: if the task does not exist, or the family's stock class does not compute the same logits.
    """
    stock = stock_model(model, task_name, tokenizer)
    tokenizer = stock_tokenizer(model, task_name, tokenizer)
    limit = model.config.max_length or default_max_length(tokenizer, model.config.text_config)
    if limit is not None:  # the only limit that stock pipelines read
        tokenizer.model_max_length = limit
    stock.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return stock.dtype


def reads_last_sub_word(model: MultitaskModel, task_name: str) -> bool:
    """Return whether the stock class of a task reads the last sub-word of a text, which it must find itself."""
    head = model.heads_by_task[task_name]
    return head.pooled_by is not None and head.stock_pooling == "last"


def stock_tokenizer(
    model: MultitaskModel, task_name: str, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer that pads on the left if the stock class of a task reads the end (XLNet)."""
    tokenizer = copy.deepcopy(tokenizer)
    if reads_last_sub_word(model, task_name) and model.config.text_config.to_dict().get("summary_type") == "last":
        tokenizer.padding_side = "left"
    return tokenizer


def _check_with_padding(
    model: MultitaskModel, stock: PreTrainedModel, task_name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that a stock model computes the logits of real texts with padding, and give the model the padding id.

    Raises:
        ValueError: if the logits differ. Decoders look for the last sub-word that is not the padding token, so that a
            tokenizer whose texts end in that token gives them a different sub-word.
    """
    if reads_last_sub_word(model, task_name):
        if tokenizer.pad_token_id in tokenizer(_TEXTS[0])["input_ids"]:
            raise ValueError(
                f"{type(stock).__name__} reads the last sub-word that is not padding, and the tokenizer adds its "
                f"padding token {tokenizer.pad_token!r} to every text"
            )
        stock.config.pad_token_id = tokenizer.pad_token_id
    batch = stock_tokenizer(model, task_name, tokenizer)(_TEXTS, padding=True, return_tensors="pt")
    check_same_logits(model, stock, task_name, batch)
