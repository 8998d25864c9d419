"""Notes on a run's data for the user, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedConfig

from mtl_nlp.data.encoding import EncodedDataset, count_unseen
from mtl_nlp.modeling.heads_multitask import stock_class_problem
from mtl_nlp.modeling.tasks_multitask import Task


def describe_export(tasks: Mapping[str, Task], text_config: PreTrainedConfig) -> list[str]:
    """Which tasks no stock class computes, told before training, a sentence each."""
    flaws = {name: stock_class_problem(task, text_config) for name, task in tasks.items()}
    return [f"{name}: cannot be exported to a stock class: {flaw}" for name, flaw in flaws.items() if flaw is not None]


def describe_lost_rows(encoded: EncodedDataset, tasks: Mapping[str, Task], max_length: int | None) -> list[str]:
    """What of a split is repaired, unknown, empty, cut or lost, a sentence each."""
    notes = []
    if encoded.repaired:
        notes.append(f"{encoded.name}: {encoded.repaired} illegal span tags, repaired as seqeval reads them")
    for name in encoded.feeds:
        missing = encoded.missing(name) - encoded.unlabelled
        if missing:
            notes.append(f"{encoded.name}: {missing} rows lack a label for {name}; the others of the row are used")
        unseen = count_unseen(encoded, tasks[name])
        if unseen:
            notes.append(
                f"{encoded.name}: {unseen} labels of {name} do not occur in training; they are scored as wrong"
            )
    for count, what in (
        (encoded.empty, "empty texts; kept, their labels count"),
        (encoded.unlabelled, "rows without any label; not used"),
        (encoded.extra_windows, f"more windows of up to {max_length} sub-words, into which long texts are cut"),
        (encoded.truncated, f"texts truncated to {max_length} sub-words"),
    ):
        if count:
            notes.append(f"{encoded.name}: {count} {what}")
    return notes
