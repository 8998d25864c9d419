"""One task of a multitask model as a plain transformers model, which needs nothing of this package."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mtl_nlp.errors import ExportError
from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.heads_multitask import stock_class_problem, stock_config
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.windows_multitask import default_max_length


def stock_model(model: MultitaskModel, task_name: str) -> PreTrainedModel:
    """The stock class of the encoder's family with the encoder and one task's head.

    Args:
        model: the multitask model.
        task_name: the task.

    Returns:
        `…ForTokenClassification` or `…ForSequenceClassification`, which computes the same logits. The task's adapters
        are merged into its encoder.

    Raises:
        ExportError: if there is no such task, or the family's stock class computes something else.
    """
    if task_name not in model.tasks:
        raise ExportError(f"--task {task_name}: no such task. {did_you_mean(task_name, model.tasks)}")
    task = model.tasks[task_name]
    if (flaw := stock_class_problem(task, model.config.text_config)) is not None:
        raise ExportError(f"--task {task_name}: {flaw}. Export it as ONNX: --format onnx.")
    if model.adapters_of(task_name):
        model = model.merge_and_unload(task_name)
    head = model.heads_by_task[task_name]
    stock = type(head.stock)(stock_config(task, model.config.text_config)).to(model.dtype)
    prefix = stock.base_model_prefix
    encoder = {f"{prefix}.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    # The head's own state holds the pooler under the encoder's name, where the family has one.
    stock.load_state_dict(encoder | head.stock.state_dict())
    return stock.eval()


def export_stock(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, task_name: str, folder: Path) -> None:
    """Write `stock_model` and the tokenizer to a folder.

    Raises:
        ExportError: see there.
    """
    stock = stock_model(model, task_name)
    tokenizer = copy.deepcopy(tokenizer)
    limit = model.config.max_length or default_max_length(tokenizer, model.config.text_config)
    if limit is not None:  # stock pipelines know no other limit
        tokenizer.model_max_length = limit
    stock.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
