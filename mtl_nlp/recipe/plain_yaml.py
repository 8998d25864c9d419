"""YAML as recipes read and write it: PyYAML without its surprises. Imports no torch.

Differences from YAML 1.1, as PyYAML reads it:

- A key that is given twice in a mapping is an error. Merge keys (`<<`) and anchors are read as usual.
- A key is a name: `no`, `on` and `yes` are texts there, such as the name of a label. As values they are booleans.
- `1e-4` is a number. A number with a leading zero (`010`), a time (`12:30`) and a date are texts.
- A variable such as `${SEED:-42}` without quotes is [`Unquoted`], so that its value is typed like YAML.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")

_TAG = "tag:yaml.org,2002:"

_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")

_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+][0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


class Unquoted(str):
    """A text of YAML that is one variable and has no quotes."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, with the differences that the module describes."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys are names, and whose own keys differ."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            if key.tag == f"{_TAG}bool":
                key.tag = f"{_TAG}str"
            name = (key.tag, key.value)
            if name in lines:
                problem = f"the key `{key.value:.80}` of line {lines[name]} is given again"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Return the text of a scalar."""
        text = str(self.construct_scalar(node))
        return Unquoted(text) if node.style is None and VARIABLE.fullmatch(text) else text


class PlainDumper(yaml.SafeDumper):
    """PyYAML's dumper, which quotes all texts that [`_Loader`] would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return the node of a text, with quotes for a variable that has them."""
        is_quoted = not isinstance(text, Unquoted) and VARIABLE.fullmatch(text)
        return self.represent_scalar(f"{_TAG}str", str(text), style='"' if is_quoted else None)


_replaced = {f"{_TAG}{name}" for name in ("int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _replaced]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, PlainDumper):
    _class.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT.pattern})$"), list("-+0123456789."))
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(rf"(?:{_INTEGER.pattern})$"), list("-+0123456789"))
_Loader.add_constructor(f"{_TAG}str", _Loader.construct_text)
PlainDumper.add_representer(str, PlainDumper.represent_text)
PlainDumper.add_representer(Unquoted, PlainDumper.represent_text)


def load_yaml(text: str) -> Any:
    """Return the data of a YAML text.

    Raises:
        yaml.YAMLError: if the text is not YAML, or a mapping has a key twice.
        ValueError: if a tag does not fit its value.
    """
    return yaml.load(text, _Loader)  # a loader of plain data


def dump_yaml(data: Any) -> str:
    """Return plain data as YAML, in the order of its keys."""
    return yaml.dump(data, Dumper=PlainDumper, sort_keys=False, allow_unicode=True)


def as_yaml(value: Any, key: str = "") -> str:
    """Return a value of a recipe as YAML has it, on one line, for messages; a text has no quotes.

    Args:
        value: the value.
        key: the key of the value. YAML 1.1 reads `no` without quotes as false, also under `save_strategy`.
    """
    value = _without_false(value, key)
    if isinstance(value, str) or type(value) in {int, float}:
        return str(value)
    shown = yaml.dump(value, Dumper=PlainDumper, default_flow_style=True, sort_keys=False, width=float("inf"))
    return shown.removesuffix("...\n").strip()


def is_same(value: Any, other: Any, key: str) -> bool:
    """Return whether two values of a key of a recipe mean the same, such as `no` with and without quotes."""
    return bool(_without_false(value, key) == _without_false(other, key))


def _without_false(value: Any, key: str) -> Any:
    return "no" if value is False and key.endswith("_strategy") else value


def typed(text: str) -> Any:
    """Return the boolean, number or null that a text without quotes is in YAML, or the text itself."""
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text.strip(), (True, False))
    if tag not in {f"{_TAG}{name}" for name in ("bool", "int", "float", "null")}:
        return text
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text.strip()))
    except ValueError:  # a number without digits, such as `0x_`, or with thousands of them
        return text
