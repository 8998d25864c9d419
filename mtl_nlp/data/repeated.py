"""Texts that are in training and in an evaluation split, whose scores then overstate the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.messages import counted

_SHARE = 0.01
"""The share of an evaluation split from which repeated texts are reported; short texts repeat in every corpus."""

_MOST_ROWS = 1_000_000
"""The largest number of training rows of a dataset whose texts are compared."""

_SEPARATOR = "\x1f"


def describe_repeated_texts(loaded: Mapping[str, LoadedDataset]) -> list[str]:
    """Return a sentence about each evaluation split with texts that also train one of its tasks.

    Texts are compared exactly, pairs as a whole, and words with words. Streams are not compared.

    Args:
        loaded: dataset -> its splits in canonical form.
    """
    training = {
        name: _texts(data.splits["train"])
        for name, data in loaded.items()
        if "train" in data.splits and len(data.splits["train"]) <= _MOST_ROWS
    }
    notes = []
    for name, data in loaded.items():
        sources = [texts for other, texts in training.items() if data.class_names.keys() & loaded[other].class_names]
        for split, rows in data.splits.items():
            if split == "train" or not sources:
                continue
            texts = _texts(rows)
            repeated = np.zeros(len(rows), dtype=bool)
            for source in sources:
                repeated |= pc.is_in(texts, value_set=source, skip_nulls=True).to_numpy()
            count = int(repeated.sum())
            if count >= max(1.0, _SHARE * len(rows)):
                verb = "is" if count == 1 else "are"
                notes.append(
                    f"{name}/{split}: {count} of {counted(len(rows), 'text')} {verb} also in training; scores on "
                    f"{split} overstate the model"
                )
    return notes


def _texts(rows: Dataset) -> pa.ChunkedArray:
    """Return the input of each canonical row as one string."""
    if "tokens" in rows.column_names:
        texts = pc.binary_join(rows.data.column("tokens"), _SEPARATOR)
    elif "text_pair" in rows.column_names:
        texts = pc.binary_join_element_wise(
            *(pc.cast(rows.data.column(key), pa.large_string()) for key in ("text", "text_pair")),
            pa.scalar(_SEPARATOR, pa.large_string()),
        )
    else:
        texts = rows.data.column("text")
    return pc.cast(texts, pa.large_string())
