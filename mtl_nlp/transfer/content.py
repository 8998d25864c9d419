"""Content keys: two runs with equal keys train the same model on the same data with the same versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Column

from mtl_nlp._version import __version__
from mtl_nlp.data.canonical import WEIGHT
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.headroom import headroom_of
from mtl_nlp.run.prepare import Run
from mtl_nlp.run.teachers import teachers_of

_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "peft")
"""The libraries whose versions change a trained model."""

_WITHOUT_EFFECT = ("output_dir", "baselines", "card", "search")
"""Keys of a recipe that do not change the trained model."""

Digests = Mapping[str, Mapping[str, str]]
"""Dataset -> `<split>` for the texts, or `<split>/<task>` for the labels of a task -> the hash of the values."""


def versions() -> dict[str, str]:
    """Return the versions that a content key covers."""
    return {"mtl_nlp": __version__, **{library: version(library) for library in _LIBRARIES}}


def digests_of(run: Run) -> dict[str, dict[str, str]]:
    """Return hashes of the texts and of the labels of every split of a run.

    A streamed split has no hash, since its rows are read during training only.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in run.recipe.datasets}
    for split, datasets in run.splits.items():
        for name, encoded in datasets.items():
            found[name] |= {f"{split}/{key}".rstrip("/"): digest for key, digest in _digests(encoded)}
    return found


def _digests(encoded: EncodedDataset) -> Iterable[tuple[str, str]]:
    weights = [encoded.windows[WEIGHT]] if WEIGHT in encoded.windows.column_names else []
    yield "", _hash_of([*encoded.inputs.values(), *weights])
    for task, references in encoded.references.items():
        yield task, _hash_of([references])


def _hash_of(columns: Iterable[Column]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        rows = column.source.select_columns([column.column_name]).with_format("arrow")
        table = rows[:].combine_chunks()  # the hash would depend on the chunks
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            stream.write_table(table.replace_schema_metadata(None))
        digest.update(sink.getvalue())
    return digest.hexdigest()


def encoder_digest(recipe: Recipe, run: Run) -> str:
    """Return the revision of an encoder on the Hub, or a hash of the files of a local encoder."""
    folder = Path(recipe.encoder)
    if not folder.is_dir():
        return f"{recipe.encoder} {run.config.text_config._commit_hash}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"}:
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def content_key(recipe: Recipe, digests: Digests, encoder: str, share: float = 1.0) -> str:
    """Return the key of a run: a hash of the recipe's values with its seed, of its data, its encoder and the versions.

    The location of the data, of the encoder, of teachers and of the output has no effect on the key.

    Args:
        recipe: the recipe of the run.
        digests: the hashes of the datasets, see `digests_of`.
        encoder: the hash of the encoder, see `encoder_digest`.
        share: the share of the hashed training rows that the run draws.
    """
    data = recipe.model_dump(exclude_defaults=True)
    for key in _WITHOUT_EFFECT:
        data.pop(key, None)
    data["encoder"] = encoder
    if data.pop("imports", None) or recipe.own_code:
        data["own_code"] = recipe.own_code
    if isinstance(recipe.mixture.headroom, str):
        data["mixture"] = {**data["mixture"], "headroom": headroom_of(recipe)}
    if recipe.distill is not None:
        data["distill"] = {task: teacher.weights for task, teacher in teachers_of(recipe).items()}
    data["datasets"] = {
        name: _dataset_content(dataset, digests[name], set(dataset["labels"]))
        for name, dataset in data["datasets"].items()
    }
    drawn = {} if share == 1.0 else {"share": share}
    content = json.dumps({"recipe": data, "versions": versions(), **drawn}, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _dataset_content(dataset: Mapping[str, Any], digests: Mapping[str, str], tasks: Collection[str]) -> dict[str, Any]:
    """Return the hashes of a dataset's texts and of the labels of some tasks; for a stream, also its section."""
    kept = {key: digest for key, digest in digests.items() if "/" not in key or key.partition("/")[2] in tasks}
    return {"data": kept, **({"section": dict(dataset)} if dataset.get("streaming") else {"tasks": sorted(tasks)})}
