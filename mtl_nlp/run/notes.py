"""Notes for the user about the data of a run, one sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.data.label_reading import EMPTY, MISALIGNED, MOVED, OVERLAPPING, UNLABELLED
from mtl_nlp.data.labels import count_unseen
from mtl_nlp.messages import counted
from mtl_nlp.modeling.encoders_multitask import reads_left_context
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.windows_multitask import added_tokens
from mtl_nlp.modeling.words_multitask import split_words

_OF_LABELS = {
    UNLABELLED: (
        "word has no label; not trained on and not scored",
        "words have no label; not trained on and not scored",
    ),
    MISALIGNED: (
        "character span cuts a word or has no word; dropped, see `alignment_mode`",
        "character spans cut a word or have no word; dropped, see `alignment_mode`",
    ),
    MOVED: (
        "character span cuts a word; moved to borders of words",
        "character spans cut a word; moved to borders of words",
    ),
    OVERLAPPING: (
        "character span overlaps a longer span; dropped",
        "character spans overlap a longer span; dropped",
    ),
    EMPTY: (
        "empty cell with a `delimiter`; read as a set without names",
        "empty cells with a `delimiter`; read as sets without names",
    ),
}
"""The sentences about the numbers of words, spans and cells in `EncodedDataset.counts`, for one and for several."""

_OF_SPLIT = re.compile(r"(?P<dataset>.+)/(?P<split>train|validation|test): (?P<count>\d+) (?P<rest>.+)")
"""A note with a number of rows, texts or words of one split."""

_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Letters of scripts without spaces between words, of which `split_words` reads a sequence as one word: Thai, …"""

_OTHER_WORDS = 0.1
"""The share of words from which `describe_words` warns; treebanks of European languages have at most a few percent."""


def describe_words(name: str, texts: Iterable[Sequence[str]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a sentence if many words of a dataset are not the words that the pipeline finds in a text.

    Args:
        name: the name of the dataset.
        texts: the words of some texts.
        tokenizer: the encoder's tokenizer.
    """
    whole = added_tokens(tokenizer)
    words = [word for text in texts for word in text if word.strip()]
    others = [word for word in words if _WITHOUT_SPACES.search(word) or len(split_words(word, whole)) > 1]
    if len(others) <= _OTHER_WORDS * len(words):
        return []
    return [
        f"{name}: {len(others) / len(words):.0%} of the words, such as {others[0]!r:.40}, are not the words that the "
        f'pipeline and `predict` find in a text; give them {{"tokens": [...]}} instead of texts'
    ]


def describe_padding(tokenizer: PreTrainedTokenizerBase, text_config: PreTrainedConfig) -> list[str]:
    """Return a sentence if the tokenizer and the encoder have different padding tokens.

    Args:
        tokenizer: the encoder's tokenizer.
        text_config: the encoder's configuration.
    """
    own = text_config.to_dict().get("pad_token_id")
    if own is None or own == tokenizer.pad_token_id:
        return []
    return [
        f"the tokenizer pads with {tokenizer.pad_token!r} ({tokenizer.pad_token_id}), and the `pad_token_id` of the "
        f"encoder is {own}; the encoder keeps it. Check that the tokenizer belongs to the encoder"
    ]


def describe_context(tasks: Mapping[str, Task], text_config: PreTrainedConfig) -> list[str]:
    """Return a sentence for each task on words of an encoder that reads only the words on the left of each word."""
    if not reads_left_context(text_config):
        return []
    family = text_config.model_type
    return [
        f"{name}: a {family} encoder reads a text from left to right, so that no word sees the words on its right; "
        f"encoders that read both sides usually label words better"
        for name, task in tasks.items()
        if task.kind.labels_words
    ]


def describe_lost_rows(encoded: EncodedDataset, tasks: Mapping[str, Task], max_length: int | None) -> list[str]:
    """Return sentences about the rows of a split that are repaired, empty, cut or not used, and about unknown labels.

    Args:
        encoded: the split.
        tasks: all tasks by name, with their label spaces.
        max_length: the largest number of sub-words that the encoder reads at once.
    """
    notes = []
    for key, words in _OF_LABELS.items():
        if encoded.counts.get(key):
            notes.append(f"{encoded.name}: {counted(encoded.counts[key], *words)}")
    if encoded.repaired:
        tags = counted(encoded.repaired, "illegal span tag", "illegal span tags")
        notes.append(f"{encoded.name}: {tags}; repaired as in seqeval")
    for name in encoded.references:
        missing = encoded.missing(name) - encoded.unlabelled
        if missing:
            rows = counted(missing, "row has", "rows have")
            notes.append(f"{encoded.name}: {rows} no label for {name}; the other labels are used")
        unseen = count_unseen(encoded, tasks[name])
        if unseen:
            shown = ", ".join(label for label, _ in unseen.most_common(5)) + (", …" if len(unseen) > 5 else "")
            labels = counted(unseen.total(), f"label of {name} does", f"labels of {name} do")
            notes.append(
                f"{encoded.name}: {labels} not occur in training ({shown}); every prediction there counts as wrong"
            )
    windows = f"of up to {max_length} sub-words, since long texts are split"
    for count, one, many in (
        (encoded.empty, "empty text; used with its labels", "empty texts; used with their labels"),
        (encoded.unlabelled, "row without any label; not used", "rows without any label; not used"),
        (encoded.extra_windows, f"additional window {windows}", f"additional windows {windows}"),
        (encoded.truncated, f"text truncated to {max_length} sub-words", f"texts truncated to {max_length} sub-words"),
    ):
        if count:
            notes.append(f"{encoded.name}: {counted(count, one, many)}")
    return notes


def one_line_per_dataset(notes: Iterable[str]) -> list[str]:
    """Return notes in which sentences that differ only in the split and a number are one sentence with both numbers.

    Args:
        notes: sentences such as `d/train: 3 texts …` and `d/test: 2 texts …`.
    """
    found: dict[tuple[str, str], list[tuple[str, re.Match[str] | None]]] = {}
    for note in notes:
        match = _OF_SPLIT.fullmatch(note)
        # A sentence about one thing has other words than a sentence about several.
        key = (note, "") if match is None or match["count"] == "1" else (match["dataset"], match["rest"])
        found.setdefault(key, []).append((note, match))
    merged = []
    for (dataset, rest), members in found.items():
        counts = ", ".join(f"{match['count']} ({match['split']})" for _, match in members if match is not None)
        merged.append(members[0][0] if len(members) == 1 else f"{dataset}: {counts} {rest}")
    return merged


def describe_draw(name: str, split: str, drawn: int, total: int) -> str:
    """Return a sentence about the rows that `max_rows` has drawn.

    Args:
        name: the name of the dataset.
        split: the name of the split.
        drawn: number of rows that are used.
        total: number of rows in the split.
    """
    kind = "training" if split == "train" else split
    return f"{name}: {drawn} of {counted(total, f'{kind} row')} drawn"


def describe_stream(stream: EncodedStream, *, is_counted: bool) -> str:
    """Return a sentence about the number of rows of a stream.

    Args:
        stream: the stream.
        is_counted: whether the rows were counted, instead of given as `num_rows` in the recipe.
    """
    how = "counted; set `num_rows` to skip the count" if is_counted else "from `num_rows`"
    return f"{stream.name}: streamed, {counted(stream.num_rows, 'row')} ({how})"


HELD_OUT = ("test", "validation")
"""The splits to report scores on, the preferred one first."""


def held_out_split(tasks: Iterable[str], splits: Mapping[str, Mapping[str, EncodedDataset]]) -> str:
    """Return the split to report scores on: the first of `HELD_OUT` with labels for all tasks.

    If neither split has labels for all tasks, the first existing one of the two is used.

    Args:
        tasks: the recipe's tasks.
        splits: split -> dataset -> its encoded rows, with at least one split of `HELD_OUT`.
    """
    present = [split for split in HELD_OUT if split in splits]
    complete = (split for split in present if not _unlabelled_tasks(tasks, splits[split].values()))
    return next(complete, present[0])


def _unlabelled_tasks(tasks: Iterable[str], datasets: Iterable[EncodedDataset | EncodedStream]) -> list[str]:
    """Return the tasks without labels in any of some datasets."""
    fed = {task for encoded in datasets for task in encoded.feeds}
    return [task for task in tasks if task not in fed]


def describe_unscored_tasks(
    tasks: Iterable[str],
    splits: Mapping[str, Mapping[str, EncodedDataset]],
    streams: Mapping[str, EncodedStream],
) -> list[str]:
    """Return a sentence per split in which a task has no labels, about the scores of this split.

    Args:
        tasks: the recipe's tasks.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
    """
    notes, tasks = [], list(tasks)
    for split, datasets in splits.items():
        unscored = _unlabelled_tasks(tasks, [*datasets.values(), *(streams.values() if split == "train" else ())])
        names = ", ".join(unscored)
        if unscored and split == "test" and held_out_split(tasks, splits) == "validation":
            notes.append(f"scored on validation, because test has no labels for {names}")
        elif unscored:
            which = "this task" if len(unscored) == 1 else "these tasks"
            notes.append(f"{split}: no dataset has labels for {names}; mtl_score excludes {which}")
    return notes
