"""Damage to structured values: JSON, YAML and the objects in a checkpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

DEEP = "deeply nested"
"""A value that `as_json` and `as_yaml` write as a deeply nested list."""

NUMBERS: tuple[Any, ...] = (
    0, 1, 2, 3, 7, -1, -100, 31, 2**31, 2**40, 10**9, 10**12, 2**63 - 1, 2**64, 10**30, 10**400,
    0.5, -0.5, 1e-300, 1e39, -1e39, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
STRINGS: tuple[str, ...] = (
    "", " ", "x", "0", "1", "-1", "true", "null", "nan", "1e39", "O", "B-X", "bert", "float16", "int8", "auto", "all",
    "ü", "日本語", "🤗" * 3, "\u0000", "\ud800", "a\nb", "a\tb", "a\r\nb", "\ufeffx", "\u202e", "a.b", "a/b", "a b",
    "a (b)", "a\\b", "[x]", "{x}", "{{ x }}", "%s", "<b>", "|", "---", "__class__", "self", "weight", "None",
    "~", ".", "..", "/", "../outside", "../outside/notes.txt", "/nonexistent/x", "/etc/passwd", "ada/nothing",
    "hf://datasets/ada/nothing", "http://canary.invalid/x", "${FUZZ_SECRET}", "${FUZZ_MISSING}", "${",
    "a" * 300, "a" * 100_000, DEEP,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], [None], [1, "x"], {"x": 1}, {"": None}, {"0": "x"}, ["x"] * 3,
    ["x"] * 20_000, [0.5] * 3, {"type": "x"}, {"name": "x", "type": "text-classification"},
)  # fmt: skip
KEYS: tuple[str, ...] = (
    "x", "", "ü", "type", "name", "labels", "auto_map", "quantization_config", "dtype", "torch_dtype", "architectures",
    "attn_implementation", "_attn_implementation", "_name_or_path", "model_type", "id2label", "num_labels", "label2id",
    "problem_type", "tokenizer_class", "use_cache", "adapters", "is_decoder", "pruned_heads", "chunk_size_feed_forward",
    "layer_types", "rope_parameters", "tie_word_embeddings", "_commit_hash", "base_model_tp_plan", "return_dict",
    "output_hidden_states", "output_attentions", "stride", "max_length", "added_tokens", "normalizer", "push_to_hub",
    "model_max_length", "padding_side", "truncation_side", "chat_template", "extra_special_tokens", "model_input_names",
    "text_config", "transformers_version", "torchscript", "trust_remote_code", "weight_map", "metadata",
)  # fmt: skip

Place = tuple[Any, ...]
"""The keys and indexes that lead to a value."""
_OPERATIONS = ("replace",) * 6 + ("number", "delete", "rename", "add", "swap", "wrap", "repeat", "cut")


def paths_in(tree: Any, path: Place = ()) -> Iterator[Place]:
    """Yield the path of every value in a tree of dicts and lists. Of long lists, the ends are enough."""
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths_in(value, (*path, key))
    elif isinstance(tree, list | tuple):
        for index in {*range(min(len(tree), 6)), *range(max(0, len(tree) - 2), len(tree))}:
            yield from paths_in(tree[index], (*path, index))


def value_at(tree: Any, path: Place) -> Any:
    """Return the value at a path."""
    for step in path:
        tree = tree[step]
    return tree


def odd_value(data: DataObject, found: Any = None) -> Any:
    """Draw a value that is too large, too long, of a wrong type, a path, …; half of the time of the type of `found`."""
    kinds = [NUMBERS, STRINGS, OTHERS]
    if isinstance(found, int | float) and not isinstance(found, bool):
        kinds += [NUMBERS] * 2
    elif isinstance(found, str):
        kinds += [STRINGS] * 2
    return copy.deepcopy(data.draw(st.sampled_from(data.draw(st.sampled_from(kinds)))))


def damage_tree(data: DataObject, tree: Any) -> tuple[Any, str]:
    """Damage one value of a tree.

    Returns:
        A damaged copy, and a description of the damage.
    """
    tree = copy.deepcopy(tree)
    # A depth is chosen before a path, so that the long lists of a vocabulary do not take all the damage.
    paths = [*paths_in(tree)]
    depth = data.draw(st.sampled_from(sorted({len(path) for path in paths})))
    path = data.draw(st.sampled_from([path for path in paths if len(path) == depth]))
    operation = data.draw(st.sampled_from(_OPERATIONS))
    found = value_at(tree, path)
    if operation == "swap":
        # Neither of two values that are swapped contains the other.
        other = data.draw(st.sampled_from(paths))
        if path[: len(other)] != other and other[: len(path)] != path:
            tree = _put(_put(tree, path, value_at(tree, other)), other, found)
        return tree, f"{_shown(path)}: swap with {_shown(other)}"
    parent = value_at(tree, path[:-1]) if path else None
    if operation == "delete" and isinstance(parent, dict | list):
        del parent[path[-1]]
        return tree, f"{_shown(path)}: delete"
    if operation == "rename" and isinstance(parent, dict):
        new = data.draw(st.sampled_from([f"{path[-1]}x", str(path[-1]).upper(), *KEYS[:4]]))
        parent[new] = parent.pop(path[-1])
        return tree, f"{_shown(path)}: rename to {new!r}"
    if operation == "add" and isinstance(found, dict):
        key, new = data.draw(st.sampled_from(KEYS)), odd_value(data)
        found[key] = new
        return tree, f"{_shown(path)}: add {key!r}: {new!r:.60}"
    if operation == "repeat" and isinstance(found, list) and found:
        found.append(copy.deepcopy(found[0]))
        return tree, f"{_shown(path)}: repeat the first item"
    new = _changed(data, operation, found)
    return _put(tree, path, new), f"{_shown(path)}: {operation} {found!r:.40} by {new!r:.60}"


def _changed(data: DataObject, operation: str, found: Any) -> Any:
    """Return a different value for a value."""
    if operation == "wrap":
        return data.draw(st.sampled_from([[found], {"x": found}, str(found), [found, found]]))
    if operation == "cut" and isinstance(found, str | list):
        return found[: len(found) // 2]
    if operation == "number" and isinstance(found, int | float) and not isinstance(found, bool):
        near = [found + 1, found - 1, -found, found * 2, found * 1000 + 1, found / 3, str(found)]
        return data.draw(st.sampled_from(near))
    if isinstance(found, torch.Tensor):
        return odd_tensor(data, found)
    return odd_value(data, found)


def odd_tensor(data: DataObject, tensor: torch.Tensor) -> Any:
    """Draw a tensor of a wrong shape or type, one that is not finite, or an odd value."""
    kind = data.draw(
        st.sampled_from(["nan", "inf", "huge", "shape", "flat", "empty", "dtype", "complex", "scalar", "other"])
    )
    if kind in ("nan", "inf", "huge") and tensor.is_floating_point() and tensor.numel():
        tensor = tensor.clone()
        tensor.view(-1)[0] = {"nan": float("nan"), "inf": float("inf"), "huge": 1e30}[kind]
        return tensor
    return {
        "shape": lambda: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
        "flat": lambda: tensor.reshape(-1),
        "empty": lambda: tensor.reshape(-1)[:0],
        "dtype": lambda: tensor.to(
            data.draw(st.sampled_from([torch.int64, torch.float16, torch.bool, torch.bfloat16]))
        ),
        "complex": lambda: tensor.to(torch.complex64),
        "scalar": lambda: torch.tensor(1.0),
    }.get(kind, lambda: odd_value(data))()


def as_json(tree: Any) -> bytes:
    """Return the JSON of a damaged tree. Python's numbers that are not finite are `NaN` and `Infinity`."""
    text = json.dumps(tree, ensure_ascii=False, default=str)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode("utf-8", errors="surrogatepass")


def as_yaml(tree: Any) -> bytes:
    """Return the YAML of a damaged tree."""
    text = yaml.dump(tree, sort_keys=False, Dumper=yaml.SafeDumper)
    return text.replace(DEEP, "[" * 500 + "]" * 500).encode("utf-8", errors="surrogatepass")


def _put(tree: Any, path: Place, value: Any) -> Any:
    """Put a value at a path, and return the tree."""
    if not path:
        return value
    parent = value_at(tree, path[:-1])
    if isinstance(parent, tuple):
        return _put(tree, path[:-1], tuple(value if index == path[-1] else item for index, item in enumerate(parent)))
    parent[path[-1]] = value
    return tree


def _shown(path: Place) -> str:
    return ".".join(map(str, path)) or "everything"
