"""The stock class of transformers that equals the model of one task."""

from __future__ import annotations

from transformers import PreTrainedModel

from mtl_nlp.modeling.heads_multitask import stock_class_problem, stock_config
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


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
