"""Encoded datasets turned back into rows, which can be encoded again with other windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from mtl_nlp.data.canonical import LABEL_PREFIX, REPAIRED, WEIGHT, arrow_feature
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import Task


def decoded_rows(encoded: EncodedDataset, tasks: Mapping[str, Task]) -> Dataset:
    """Return the canonical rows of an encoded dataset, with the labels of the tasks and the weights.

    A row without any label has no window, and the weight 1, which has no effect.

    Args:
        encoded: the dataset.
        tasks: the tasks by name, with their label kinds.

    Raises:
        DataError: if the dataset does not hold its texts.
    """
    if not encoded.inputs:
        raise DataError(f"{encoded.name}: does not hold its texts. Encode the rows again with `encode`.")
    columns: dict[str, Any] = {key: column[:] for key, column in encoded.inputs.items()}
    features: dict[str, Any] = {
        key: List(Value("string")) if key == "tokens" else Value("string") for key in encoded.inputs
    }
    for name in [name for name in encoded.references if name in tasks]:
        columns[LABEL_PREFIX + name] = encoded.references[name][:]
        features[LABEL_PREFIX + name] = arrow_feature(tasks[name].kind.label_feature)
    if WEIGHT in encoded.windows.column_names:
        weights = np.ones(encoded.num_rows, dtype=np.float32)
        weights[encoded.windows["row"][:]] = encoded.windows[WEIGHT][:]
        columns[WEIGHT], features[WEIGHT] = weights, Value("float32")
    columns[REPAIRED], features[REPAIRED] = [0] * encoded.num_rows, Value("int32")
    return Dataset.from_dict(columns, features=Features(features))
