"""The answers of a model for a padded text, compared with those for the text alone and those of the stock classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.initialization import no_init_weights

from mtl_nlp.messages import one_line
from mtl_nlp.modeling.heads_multitask import TaskHead, stock_class_problem
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.refusal import REFUSALS
from mtl_nlp.run.stock import as_stock_class

LIBRARY_ERRORS = (*REFUSALS, StrictDataclassError)
"""The errors that classes of transformers raise for inputs and configurations that they do not support."""

_ROUNDING = 1e-5
"""The largest difference between equal logits in float32, relative to the largest logit."""
_EQUAL = 1e-3
"""The largest difference between equal logits, relative to the effect of different words."""


@dataclass(frozen=True)
class Answers:
    """The answers of one task for a long text, a short text with padding, and the long text with different words.

    Attributes:
        logits: the outputs of the head's layers, without a scale of the task, shape (3, ...).
        rounding: the largest difference between equal logits.
        effect: the largest difference that different words make.
        effect_of_padding: the largest difference between the short text with padding and alone, relative to `effect`.
        effect_on_head: the same for the head alone, which reads the same hidden states of the text both times.
    """

    logits: torch.Tensor
    rounding: float
    effect: float
    effect_of_padding: float
    effect_on_head: float

    @property
    def are_clear(self) -> bool:
        """Whether the logits are finite, and not so far from zero that rounding hides the effect of words."""
        return bool(self.logits.isfinite().all()) and self.rounding < _EQUAL * float(self.logits.abs().max())

    @property
    def ignore_text(self) -> bool:
        """Whether different words make no difference."""
        return self.effect <= self.rounding

    @property
    def head_reads_padding(self) -> bool:
        """Whether padding changes the answers although the hidden states of the text are the same."""
        return self.effect_on_head > _EQUAL


@dataclass(frozen=True)
class _Pass:
    """A forward pass: the logits of each task, and the arguments of each head by position and by name."""

    logits: dict[str, torch.Tensor]
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]]


@torch.no_grad()
def answers_of(model: MultitaskModel, inputs: Mapping[str, torch.Tensor], length: int) -> dict[str, Answers]:
    """Return the answers of each task.

    Args:
        model: the model, in evaluation mode.
        inputs: `input_ids` and the other inputs of three texts, shape (3, L). The third text is the first with
            different words.
        length: the number of sub-words of the second text, which is padded on the right.

    Raises:
        ValueError: if the logits of a task do not have the shape that its labels need.
    """
    whole = _run(model, inputs)
    alone = _run(model, {key: value[1:2, :length] for key, value in inputs.items()})
    shape = inputs["input_ids"].shape
    found = {}
    for name, head in model.heads_by_task.items():
        _check_shape(model, name, whole.logits[name], inputs["input_ids"].shape)
        logits, short = (_without_scale(head, each.logits[name]) for each in (whole, alone))
        padded = logits[1:2, :length] if logits.ndim > 2 else logits[1:2]
        positional, named = whole.arguments[name]
        of_head = head(
            *(_of_short_text(value, shape, length) for value in positional),
            **{key: _of_short_text(value, shape, length) for key, value in named.items()},
        )
        factor = 1.0 if head.kind.scale is None else abs(head.kind.scale[0])
        rounding = _ROUNDING * float(whole.logits[name].abs().max()) / factor
        effect = _difference(logits[0], logits[2])
        unit = max(effect, rounding, torch.finfo(torch.float32).tiny)
        found[name] = Answers(
            logits,
            rounding,
            effect,
            effect_of_padding=_difference(padded, short) / unit,
            effect_on_head=_difference(padded, _without_scale(head, of_head)) / unit,
        )
    return found


def _run(model: MultitaskModel, inputs: Mapping[str, torch.Tensor]) -> _Pass:
    arguments: dict[str, Any] = {}
    hooks = [
        head.register_forward_pre_hook(
            lambda _, positional, named, name=name: arguments.update({name: (positional, named)}), with_kwargs=True
        )
        for name, head in model.heads_by_task.items()
    ]
    torch.default_generator.manual_seed(0)  # for the families that draw random numbers (Reformer)
    logits = model(**inputs).logits
    for hook in hooks:
        hook.remove()
    return _Pass(logits, arguments)


def _check_shape(model: MultitaskModel, name: str, logits: torch.Tensor, shape: torch.Size) -> None:
    wanted = (shape[0], *model.tasks[name].kind.logits_shape(shape[1]))
    if tuple(logits.shape) != wanted:
        raise ValueError(
            f"for {shape[0]} texts of {shape[1]} sub-words, the logits of {name} should have the shape {wanted}. Found "
            f"{tuple(logits.shape)}"
        )


def _of_short_text(value: Any, shape: torch.Size, length: int) -> Any:
    """Return the part of a head's argument that belongs to the second text without its padding."""
    if not isinstance(value, torch.Tensor) or value.shape[:1] != shape[:1]:
        return value
    return value[1:2, :length] if value.shape[:2] == shape else value[1:2]


def _without_scale(head: TaskHead, logits: torch.Tensor) -> torch.Tensor:
    factor, offset = head.kind.scale or (1.0, 0.0)
    return (logits - offset) / factor


def _difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    return float((logits - others).abs().max()) if logits.shape == others.shape else float("inf")


@torch.no_grad()
def stock_problem(model: MultitaskModel, name: str, inputs: Mapping[str, torch.Tensor], answers: Answers) -> str | None:
    """Return the reason why the stock class of a task does not compute the logits of the model; None if it does.

    The result is also None if the head does not claim to be that of a stock class.

    Args:
        model: the model without adapters, in evaluation mode.
        name: the task.
        inputs: the inputs of `answers_of`.
        answers: the answers of the task.
    """
    if stock_class_problem(model.tasks[name], model.config.text_config) is not None:
        return None
    try:
        with no_init_weights():
            stock = as_stock_class(model, name, shares_weights=True)
        stock.config.use_cache = False  # which needs a layer with attention (Jamba)
        torch.default_generator.manual_seed(0)
        # One text, since an export sets the padding of some classes.
        logits = stock(**{key: value[:1] for key, value in inputs.items()}).logits
    except LIBRARY_ERRORS as error:
        return one_line(error).rstrip(".") or type(error).__name__
    if _difference(answers.logits[:1], logits) <= max(_EQUAL * answers.effect, answers.rounding):
        return None
    return f"{type(stock).__name__} computes other logits than the model"
