"""The optional fields of a recipe, with values that a user might write: the originals have few of them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from ranges import METHOD_RANGES, RECIPE_RANGES
from trees import odd_value

from mtl_nlp.balancing.gradient_methods import GRADIENT_METHODS
from mtl_nlp.balancing.registry import WEIGHTINGS

_NAMES = ("text", "second", "topic", "moods", "score", "tokens", "upos", "ner", "x")
"""The columns of the originals, and one that no file has."""
_LABELS = (
    {"a": "b"},
    {"a": None},
    {"a": "A", "b": "A"},
    {"x": "y"},
    {"B-PER": "O"},
    {"O": "B-PER"},
    {"a": "", "b": " "},
)
_FUNCTIONS = ("json:loads", "os:getcwd", "x:y", "code.py:f", "json", ":", "json:x")
_TASKS = ("pos", "ner", "topic", "moods", "score")
FIELDS: dict[str, tuple[Any, ...]] = {
    "datasets.texts.path": ("data/train.jsonl", "data", "data/*.jsonl", "csv", "text", "data/[x].jsonl", "x.jsonl"),
    "datasets.texts.data_files": (
        "data/train.jsonl",
        ["data/train.jsonl", "data/test.jsonl"],
        {"train": "data/*.jsonl"},
        {"train": "data/train.csv"},
        {"train": "data/train.jsonl", "dev": "data/test.jsonl"},
        {"train": []},
        "data/[ab].jsonl",
    ),
    "datasets.texts.inputs.text": _NAMES,
    "datasets.texts.inputs.text_pair": _NAMES,
    "datasets.texts.inputs.tokens": _NAMES,
    "datasets.texts.labels.topic": (*_NAMES, ["score"], {"column": "topic"}, {"column": "topic", "delimiter": ";"}),
    "datasets.texts.labels.moods": (*_NAMES, ["topic", "score"], {"column": "text", "delimiter": " "}),
    "datasets.texts.labels.score": (*_NAMES, ["score"], {"column": "score"}),
    "datasets.texts.labels.ner": (*_NAMES, {"column": "text", "alignment_mode": "expand"}),
    "datasets.words.labels.pos": _NAMES,
    "datasets.words.labels.ner": _NAMES,
    "datasets.words.inputs.tokens": _NAMES,
    "datasets.words.columns": (["tokens"], ["tokens", "upos"], ["ner", "upos", "tokens"], ["tokens", "tokens", "ner"]),
    "datasets.texts.label_map.topic": _LABELS,
    "datasets.texts.label_map.moods": _LABELS,
    "datasets.texts.label_map.score": _LABELS,
    "datasets.words.label_map.ner": _LABELS,
    "datasets.texts.weight": _NAMES,
    "datasets.words.weight": _NAMES,
    "datasets.texts.splits": (
        {"validation": "test"},
        {"train": "train[:50%]", "validation": "train[50%:]"},
        {"train": "train[:0]"},
        {"train": "train["},
        {"train": "train+test"},
        {"test": "x"},
        {"train": "train[:200%]"},
    ),
    "datasets.texts.streaming": (True,),
    "datasets.words.streaming": (True,),
    "datasets.texts.stratify_by_column": _NAMES,
    "datasets.texts.map": _FUNCTIONS,
    "datasets.texts.filter": _FUNCTIONS,
    "datasets.texts.on_missing_text": ("skip", "error"),
    "datasets.texts.encoding": ("utf-8", "utf-16", "latin-1", "x"),
    "datasets.texts.field": ("text", "x"),
    "datasets.texts.sep": (";", "\t", "", "ab"),
    "datasets.texts.name": ("x", "default"),
    "datasets.texts.revision": ("main", "x"),
    "datasets.texts.trust_remote_code": (True, False),
    "datasets.texts.num_proc": (1, 0, -1),
    "datasets.texts.features": ({"text": "string"}, "x"),
    "mixture.batching": ("mixed", "homogeneous", "x"),
    "mixture.headroom": (True, "comparison.json", "recipe.yaml", "data"),
    "mixture.probabilities": ({"words": 0.5, "texts": 0.5}, {"words": 1.0}, {"words": 0.3, "texts": 0.3}),
    "mixture.temperature": ([5, 1], [1, 2, 3], [1, float("inf")], [], float("inf")),
    "loss.weighting": tuple(WEIGHTINGS),
    "loss.weights": ({"topic": 0}, {"topic": [1, 0]}, {"x": 1}, dict.fromkeys(_TASKS, 0)),
    "loss.scale": ("rows", "per_task"),
    "loss.on_nonfinite": ("stop", "skip"),
    "loss.gradients": tuple(GRADIENT_METHODS),
    "loss.freeze_when_overfit": ({"patience": 1}, {}, None),
    "adapters.target_modules": ("all-linear", [], ["query"], ["x"], ["query", "query"], "query"),
    "adapters.tasks": ("all", [], ["ner"], ["x"], ["ner", "ner"]),
    "adapters.shared": (True, False),
    "adapters.use_dora": (True,),
    "adapters.use_rslora": (True,),
    "adapters.train_encoder": (False,),
    "freeze": (["encoder"], ["embeddings"], ["layers 0-1"], ["layers 1-0"], ["layers 0-9"], ["ner"], ["x", "ner"]),
    "distill": ({"teachers": "data"}, {"teachers": {"ner": "data"}}, {"teachers": {}}, {"teachers": {"x": "data"}}, {}),
    "model_init_kwargs": (
        {"attn_implementation": "eager"},
        {"attn_implementation": "x"},
        {"dtype": "bfloat16"},
        {"dtype": "x"},
        {"trust_remote_code": True},
        {"num_hidden_layers": 1},
        {"hidden_dropout_prob": -1},
        {"hidden_dropout_prob": "x"},
        {"quantization_config": {}},
        {"device_map": "auto"},
        {"revision": "x"},
        {"x": 1},
        {"config": {}},
        {"state_dict": {}},
        {"num_labels": 3},
    ),
    "tasks.topic.names": (["a", "b"], {"0": "a"}, ["a", "a"], [], {"x": "a"}, {0: "a", 1: "b"}),
    "tasks.topic.class_weights": ("balanced", {"a": 2}, {"x": 1}, {"a": 0, "b": 0}, {}),
    "tasks.topic.head": ({"hidden_layers": 1}, {"hidden_layers": 1, "dropout": 0.5}, {}, "x", {"type": "x"}, {"x": 1}),
    "tasks.topic.pooling": ("mean", "cls", "last", "x"),
    "tasks.topic.metrics": (["accuracy"], ["f1"], ["x"], [], "accuracy", ["macro_f1", "macro_f1"]),
    "tasks.topic.primary": ("accuracy", "macro_f1", "x"),
    "tasks.topic.type": ("text-classification", "regression", "multi-label-classification", "token-classification"),
    "tasks.ner.scheme": ("iob2", "iob1", "bioes", "bilou", "bmes", "x"),
    "tasks.ner.type": ("text-classification", "regression", "token-classification"),
    "tasks.moods.pos_weight": ("balanced", {"x": 2}, {"z": 1}),
    "tasks.moods.threshold": ("tuned", 0.5, "x"),
    "tasks.score.normalize": (True, False, "x"),
    "tasks.new": ({"type": "text-classification"}, {"type": "x"}, {}),
    "card.language": (["en", "de"], "x", ["x" * 50], "English"),
    "card.license": ("mit", "x", "MIT License"),
    "card.examples": (True, False),
    "baselines.training": ({"learning_rate": 1e-3}, {"x": 1}, {"max_steps": 0}, {"seed": -1}),
    "baselines.tasks": ({"ner": {"training": {"learning_rate": 1}}}, {"x": {}}, {"ner": {"training": {"seed": "x"}}}),
    "imports": (["code"], ["code.py"], ["os"], ["../x.py"], []),
}  # fmt: skip
"""Dotted key -> values; numeric fields are in `RANGES`."""
_STARS = {
    "datasets": ("words", "texts"),
    "max_rows": ("train", "validation", "test", "dev"),
    "head": ("hidden_layers",),
}


def set_field(data: DataObject, recipe: dict[str, Any]) -> str:
    """Set an optional field of a recipe, and return a description."""
    ranges = {**RECIPE_RANGES, **METHOD_RANGES}
    key = data.draw(st.sampled_from([*FIELDS, *ranges]))
    steps: list[str] = []
    for step in key.split("."):
        names = _STARS.get(steps[-1], _TASKS) if steps and step == "*" else (step,)
        steps.append(data.draw(st.sampled_from(names)))
    values = list(FIELDS.get(key, ()))
    if key in ranges:
        inside, outside = ranges[key].ends()
        values += [*inside, *inside, *outside, 2, 0.5]
        for needed, value in ranges[key].needs.items():
            _put(recipe, needed.split("."), value)
    value = odd_value(data) if data.draw(st.integers(0, 3)) == 0 else copy.deepcopy(data.draw(st.sampled_from(values)))
    _put(recipe, steps, value)
    return f"{'.'.join(steps)}={value!r:.80}"


def _put(recipe: dict[str, Any], steps: list[str], value: Any) -> None:
    section = recipe
    for step in steps[:-1]:
        if not isinstance(section.get(step), dict):
            section[step] = {}
        section = section[step]
    section[steps[-1]] = value
