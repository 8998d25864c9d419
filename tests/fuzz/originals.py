"""The intact folders whose copies are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from datasets import Dataset
from sandbox import Sandbox
from toys import TEXTS, build_config, build_tokenizer
from transformers import AutoModel

PLAIN, ADAPTED = "plain", "adapted"
"""The names of the originals: a BERT without adapters, and an XLM-RoBERTa with adapters."""
RUN, ENCODER, RECIPE, TEXT_FILE = "run", "encoder", "recipe.yaml", "texts.jsonl"
STEPS = 2


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe with all task types, in which all paths are relative."""
    files = ("train", "validation", "test")
    return {
        "encoder": ENCODER,
        "output_dir": RUN,
        "tasks": {
            "pos": {"type": "token-classification"},
            "ner": {"type": "token-classification", "scheme": "iob2"},
            "topic": {"type": "text-classification"},
            "moods": {"type": "multi-label-classification"},
            "score": {"type": "regression"},
        },
        "datasets": {
            "words": {
                "path": "conll",
                "columns": ["tokens", "upos", "ner"],
                "data_files": {split: f"data/{split}.conll" for split in files},
                "inputs": {"tokens": "tokens"},
                "labels": {"pos": "upos", "ner": "ner"},
            },
            "texts": {
                "path": "json",
                "data_files": {split: f"data/{split}.jsonl" for split in files},
                "inputs": {"text": "text", "text_pair": "second"},
                "labels": {"topic": "topic", "moods": "moods", "score": "score"},
            },
        },
        "training": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 8,
            "save_strategy": "steps",
            "save_steps": 1,
            "logging_steps": 1,
            "use_cpu": True,
        },
        "card": {"license": "apache-2.0", "language": ["en"], "base_model": "ada/tiny"},
        **changes,
    }


def build_originals(sandbox: Sandbox) -> dict[str, Path]:
    """Build the folders of all originals, by name."""
    return {name: build_original(sandbox, name) for name in (PLAIN, ADAPTED)}


def build_original(sandbox: Sandbox, name: str) -> Path:
    """Build a folder with an encoder, data, texts, a recipe and its run with two checkpoints.

    The recipe in a run's folder has absolute paths, so the run is trained in the folder of the cases and then copied.
    """
    empty = sandbox.folder / f"{name}-empty"
    empty.mkdir()
    case = sandbox.new_case(empty)
    adapted = name == ADAPTED
    torch.manual_seed(0)
    tokenizer = build_tokenizer("unigram" if adapted else "wordpiece")
    config = build_config("xlm-roberta" if adapted else "bert", vocab_size=len(tokenizer))
    AutoModel.from_config(config).save_pretrained(case / ENCODER)
    tokenizer.save_pretrained(case / ENCODER)
    write_data(case / "data")
    lines = [{"text": TEXTS[0]}, {"text": TEXTS[1], "text_pair": TEXTS[2]}, {"tokens": TEXTS[3].split()}]
    (case / TEXT_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plain = recipe(adapters={"r": 2, "alpha": 4, "tasks": ["ner", "topic"], "shared": True}) if adapted else recipe()
    (case / RECIPE).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    outcome = sandbox.run(case, [["train", RECIPE], ["predict", RUN, TEXT_FILE]], [case / RUN])
    assert outcome.finished.status == 0 and not outcome.violations, outcome
    original = sandbox.folder / name
    shutil.copytree(case, original)
    return original


def write_data(folder: Path) -> None:
    """Write small splits: words as CoNLL and CoNLL-U, and texts as JSON lines, CSV, TSV, Parquet and plain lines."""
    folder.mkdir()
    for split, count in (("train", 16), ("validation", 6), ("test", 6)):
        texts = (TEXTS * 2)[:count]
        sentences = [[(word, "PUNCT" if word == "." else "X", _ner(word)) for word in text.split()] for text in texts]
        rows = [
            {"text": text, "second": "Paris", "topic": "ab"[n % 2], "moods": ["x", "y"][: n % 3], "score": n / 4}
            for n, text in enumerate(texts)
        ]
        conll = "\n\n".join("\n".join("\t".join(word) for word in sentence) for sentence in sentences)
        conllu = "\n\n".join(
            "\n".join(f"{n}\t{word}\t_\t{pos}" + "\t_" * 6 for n, (word, pos, _) in enumerate(sentence, start=1))
            for sentence in sentences
        )
        (folder / f"{split}.conll").write_text(f"{conll}\n\n", encoding="utf-8")
        (folder / f"{split}.conllu").write_text(f"{conllu}\n\n", encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        table = Dataset.from_list(rows).data.table
        pq.write_table(table, folder / f"{split}.parquet")
        frame = Dataset(table).remove_columns("moods").to_pandas()
        for suffix, separator in (("csv", ","), ("tsv", "\t")):
            frame.to_csv(folder / f"{split}.{suffix}", sep=separator, index=False)
        (folder / f"{split}.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def _ner(word: str) -> str:
    return "B-PER" if word[0].isupper() else "O"
