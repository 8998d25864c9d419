"""Notes for the user about a run's data, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedConfig

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, count_unseen
from mtl_nlp.modeling.heads_multitask import stock_class_problem
from mtl_nlp.modeling.tasks_multitask import Task


def describe_export(tasks: Mapping[str, Task], text_config: PreTrainedConfig) -> list[str]:
    """Return a sentence for each task that cannot be exported to a stock class of transformers."""
    flaws = {name: stock_class_problem(task, text_config) for name, task in tasks.items()}
    return [f"{name}: cannot be exported to a stock class: {flaw}" for name, flaw in flaws.items() if flaw is not None]


def describe_lost_rows(encoded: EncodedDataset, tasks: Mapping[str, Task], max_length: int | None) -> list[str]:
    """Return sentences about a split's rows that are repaired, empty, cut or not used, and about unknown labels.

    Args:
        encoded: the split.
        tasks: all tasks by name, with their label spaces.
        max_length: the largest number of sub-words that the encoder reads at once.
    """
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


def describe_stream(stream: EncodedStream, *, is_counted: bool) -> str:
    """Return a sentence about the number of a stream's rows, which is counted or given in the recipe."""
    how = "counted; `num_rows` spares it" if is_counted else "as given"
    return f"{stream.name}: streamed, {stream.num_rows} rows ({how})"


def describe_unscored_tasks(
    tasks: Iterable[str],
    splits: Mapping[str, Mapping[str, EncodedDataset]],
    streams: Mapping[str, EncodedStream],
) -> list[str]:
    """Return a sentence for each split in which some task has no labels.

    Args:
        tasks: the recipe's tasks.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
    """
    notes = []
    for split, datasets in splits.items():
        feeders = [*datasets.values(), *(streams.values() if split == "train" else ())]
        unscored = [task for task in tasks if not any(task in encoded.feeds for encoded in feeders)]
        if unscored:
            notes.append(f"{split}: no dataset has labels for {', '.join(unscored)}; mtl_score leaves them out")
    return notes
