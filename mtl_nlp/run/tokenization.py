"""The tokenization of a run's datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, encode_dataset, encode_stream
from mtl_nlp.data.loading import LoadedDataset, has_labels
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.notes import (
    describe_draw,
    describe_lost_rows,
    describe_stream,
    describe_unscored_tasks,
    describe_words,
    one_line_per_dataset,
)

logger = logging.getLogger(__name__)

_SAMPLED_ROWS = 1000
"""The number of first rows whose words are compared with those of the pipeline."""


@dataclass
class TokenizedDatasets:
    """The datasets of a run, ready for the encoder.

    Attributes:
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
        notes: sentences for the user about rows that are cut, repaired or not used.
    """

    splits: dict[str, dict[str, EncodedDataset]] = field(default_factory=dict)
    streams: dict[str, EncodedStream] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def tokenize_datasets(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig, loaded: Mapping[str, LoadedDataset]
) -> TokenizedDatasets:
    """Tokenize all splits of a run's datasets, except evaluation splits without any label.

    Args:
        recipe: the recipe.
        tokenizer: the encoder's tokenizer.
        config: the model's configuration, with the tasks' label spaces.
        loaded: dataset -> its splits in canonical form.

    Raises:
        DataError: if a training split has no label, or a row of a stream is not valid.
    """
    tasks = {task.name: task for task in config.get_tasks()}
    max_length = config.max_length or default_max_length(tokenizer, config.text_config)
    window: dict[str, Any] = {"reads_words": config.reads_words, "max_length": max_length, "stride": config.stride}
    found = TokenizedDatasets()
    for name, data in loaded.items():
        section = recipe.datasets[name]
        found.notes += data.notes
        lost: list[str] = []
        if data.stream is not None:
            stream = encode_stream(
                f"{name}/train",
                data.stream,
                tasks,
                tokenizer,
                **window,
                num_rows=data.num_rows,
                buffer_size=section.buffer_size,
            )
            found.streams[name] = stream
            found.notes.append(describe_stream(stream, is_counted=section.num_rows is None))
        for split, canonical in data.splits.items():
            if split in data.drawn_from:
                found.notes.append(describe_draw(name, split, len(canonical), data.drawn_from[split]))
            if split != "train" and not any(has_labels(canonical, task) for task in data.class_names):
                found.notes.append(f"{name}/{split}: no row has a label; the split is not used")
                continue
            logger.info("tokenizing %s/%s: %d rows", name, split, len(canonical))
            encoded = encode_dataset(f"{name}/{split}", canonical, tasks, tokenizer, **window)
            found.splits.setdefault(split, {})[name] = encoded
            lost += describe_lost_rows(encoded, tasks, max_length)
            if split == "train" and "tokens" in section.inputs:
                found.notes += describe_words(name, canonical[:_SAMPLED_ROWS]["tokens"], tokenizer)
        found.notes += one_line_per_dataset(lost)
    found.notes += describe_unscored_tasks(recipe.tasks, found.splits, found.streams)
    return found
