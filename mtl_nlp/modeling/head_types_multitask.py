"""The option `head` of a task: hidden layers, or a head from outside of this package. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .hints_multitask import hint

HEADS: dict[str, Callable[..., Any]] = {}
"""The registered heads by name."""

HIDDEN_LAYERS: dict[str, Any] = {"hidden_layers": 1, "dropout": 0.1}
"""The options of hidden layers before the output layer, with their defaults."""


class NotRegisteredError(ValueError):
    """A task type or a head is not registered. The message names the module to import, if it is known."""


_Head = TypeVar("_Head", bound=type)


def register_head(name: str) -> Callable[[_Head], _Head]:
    """Return a decorator that registers a class as a head, so that tasks can name the head in their option `head`.

    The class is an `nn.Module` for one task. Its constructor takes the encoder's configuration, in which `num_labels`
    is the number of logits, the level (`token` or `sequence`), and the options of the recipe, which are plain data. Its
    `forward` takes the hidden states, shape (rows, length, hidden), and the attention mask, shape (rows, length); it
    returns logits, shape (rows, length, num_labels) at the token level and (rows, num_labels) at the sequence level.
    Both shapes may have 0 rows. All state should be in parameters and persistent buffers, which a saved model has.

    A class that is defined again, as in a notebook, replaces its earlier definition.

    Args:
        name: the name of the head.

    Raises:
        ValueError: if the name is not a text of letters, digits, `-` and `_`, or a different class has this name.

    Example:
        >>> from torch import nn
        >>> from mtl_nlp import register_head
        >>> @register_head("bias-free")
        ... class BiasFree(nn.Module):
        ...     def __init__(self, config, level):
        ...         super().__init__()
        ...         self.level = level
        ...         self.output = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        ...
        ...     def forward(self, hidden_states, attention_mask):
        ...         return self.output(hidden_states if self.level == "token" else hidden_states[:, 0])
    """
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise ValueError(f"The name of a head should consist of letters, digits, `-` and `_`. Found {name!r:.80}.")

    def register(head: _Head) -> _Head:
        known = HEADS.get(name, head)
        if (known.__module__, known.__qualname__) != (head.__module__, head.__qualname__):
            raise ValueError(
                f"The name of a head should be unique. Found {name!r}, which belongs to "
                f"{known.__module__}.{known.__qualname__}. Give {head.__qualname__} a different name."
            )
        HEADS[name] = head
        return head

    return register


def registered_name(head: Any) -> str | None:
    """Return the name of the registered head that a task's option `head` names; None for hidden layers or no option."""
    return head.get("type") if isinstance(head, dict) else head


def head_options(head: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a task's head: those of the registered class, or `HIDDEN_LAYERS` with all defaults."""
    if head is None or isinstance(head, str):
        return {}
    if "type" in head:
        return {key: value for key, value in head.items() if key != "type"}
    return {**HIDDEN_LAYERS, **head}


def normal_head(head: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return a valid option `head` in the form in which equal heads are equal: a name, or all options."""
    options, name = head_options(head), registered_name(head)
    return options if name is None else {"type": name, **options} if options else name


def check_head(task: str, head: Any, module: str | None = None) -> None:
    """Check the option `head` of a task.

    Args:
        task: the name of the task, for the message.
        head: the option: `{hidden_layers: 1, dropout: 0.1}`, the name of a registered head, or
            `{type: name}` with the head's own options.
        module: the module that registers the head, as a saved model names it.

    Raises:
        NotRegisteredError: if the head is not registered.
        ValueError: if the option has a different form, or the class of the head does not take the options.
    """
    name = registered_name(head)
    if not isinstance(head, str | dict) or not isinstance(name, str | None) or (name is None and not head):
        raise ValueError(
            f"Task {task!r}: `head` should be the name of a registered head, `{{type: name}}` with its options, or "
            f"`{{hidden_layers: 1, dropout: 0.1}}`. Found {head!r:.80}."
        )
    if name is None:
        _check_hidden_layers(task, head)
        return
    if name not in HEADS:
        advice = "first the module that registers it" if module is None else f"the module {module!r:.80} first"
        message = f"Task {task!r}: no head {name!r:.80} is registered. Import {advice}. {hint(name, HEADS)}"
        raise NotRegisteredError(message.rstrip())
    try:
        inspect.signature(HEADS[name]).bind("config", "level", **head_options(head))
    except TypeError as error:
        raise ValueError(f"Task {task!r}: `head`: {name} {error}.") from error


def _check_hidden_layers(task: str, head: Any) -> None:
    if unknown := [key for key in head if key not in HIDDEN_LAYERS]:
        raise ValueError(
            f"Task {task!r}: `head` has no option {unknown[0]!r:.80}. It has hidden_layers and dropout, or the `type` "
            f"of a registered head."
        )
    layers, dropout = head_options(head).values()
    if not isinstance(layers, int) or isinstance(layers, bool) or not 1 <= layers <= 100:
        raise ValueError(
            f"Task {task!r}: `head.hidden_layers` should be an integer from 1 to 100. Found {layers!r:.80}."
        )
    if not isinstance(dropout, int | float) or isinstance(dropout, bool) or not 0.0 <= dropout < 1.0:
        raise ValueError(f"Task {task!r}: `head.dropout` should be a number from 0 to below 1. Found {dropout!r:.80}.")
