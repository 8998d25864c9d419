"""Inputs of `predict` in all formats, and options that go with them or do not."""

from __future__ import annotations

import csv
import io
import json

from damage import Damage
from originals import RUN
from toys import TEXTS
from trees import STRINGS

FORMATS = {"text": "txt", "csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "conll": "conll", "conllu": "conllu"}
"""Format -> suffix of its files."""
_NAMES = [text for text in STRINGS if len(text) < 300 and not text.startswith("-") and not {"\0", "\ud800"} & {*text}]
"""Odd texts that a process can have as arguments, and that are no options."""
_COLUMNS = ("text", "second", "id", "text_pair")


def intact_input(suffix: str) -> bytes:
    """Return a small file of inputs."""
    texts = TEXTS[:3]
    if suffix in ("csv", "tsv"):
        table = io.StringIO()
        writer = csv.writer(table, delimiter="\t" if suffix == "tsv" else ",", lineterminator="\n")
        writer.writerows([("id", "text", "second"), *((number, text, "Paris") for number, text in enumerate(texts))])
        return table.getvalue().encode()
    if suffix == "jsonl":
        rows = [{"text": texts[0]}, {"text": texts[1], "text_pair": texts[2], "id": 1}, {"tokens": texts[2].split()}]
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    lines = [
        "\t".join(["1", word, *"_" * 8]) if suffix == "conllu" else word for text in texts for word in text.split()
    ]
    return "\n".join(texts if suffix == "txt" else [*lines, ""]).encode()


def odd_options(damage: Damage, kind: str) -> list[str]:
    """Draw options of `predict` for a format of inputs."""
    options: dict[str, list[str]] = {
        "--output-format": ["conll", "jsonl"],
        "--output": ["out/answers", "out", "out/x/y", "", "recipe.yaml/x"],
        "--batch-size": ["1", "2", "1000000000"],
        "--sep": [";", "\t", "|", "", ";;", '"'],
        "--top-k": ["1", "all", "1000000000"],
        "--tasks": ["ner", "topic", "topic,ner", "ner,ner", ",", *_NAMES],
        "--text-column": [*_COLUMNS, *_NAMES],
        "--text-pair-column": [*_COLUMNS, *_NAMES],
        "--input-format": [*FORMATS],
        "--device": ["cpu", "cuda", "meta", "x", "cpu:1", ""],
    }
    names = [damage.choose([*options]) for _ in range(damage.choose([0, 0, 1, 1, 2]))]
    chosen = {name: damage.choose(options[name]) for name in names}
    if damage.rarely(2):
        chosen.setdefault("--input-format", kind)
    return [text for pair in chosen.items() for text in pair]


def predict_command(file: str, options: list[str]) -> list[str]:
    """Return the arguments of `predict` for a file; `-` for standard input."""
    return ["predict", RUN, file, *options]
