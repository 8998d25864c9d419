from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import fails
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value, config
from safetensors.torch import load_file

from mtl_nlp.cli.main import main
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import EncodedStream, encode_stream
from mtl_nlp.errors import DataError
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.mixture.streaming import MixtureStream, StreamReader
from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run, prepare

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "near", "river", "bank", "lives"]
TYPES = {
    "topic": {"type": "text-classification"},
    "score": {"type": "regression"},
    "pos": {"type": "token-classification"},
}
ROWS = 47

worlds = pytest.mark.parametrize("world", [1, 2, 3])
batchings = pytest.mark.parametrize("batching", ["mixed", "homogeneous"])

Row = dict[str, Any]
Batch = tuple[list[Row], dict[str, Any]]


def text_rows(count: int, first: int = 0, **columns: Any) -> list[Row]:
    """Return texts of 1 to 12 words. The topic and the score of each text are its number."""
    return [
        {"text": " ".join(WORDS[: 1 + number * 7 % 12]), "topic": f"{number:04d}", "score": float(number), **columns}
        for number in range(first, first + count)
    ]


def write_rows(path: Path, rows: Sequence[Row | str]) -> str:
    """Write rows as JSON lines, and strings unchanged."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def write_files(folder: Path, kind: str, files: int, count: int = ROWS) -> Row:
    """Write a streamed dataset in files of different sizes; the topic of each row is its number."""
    folder.mkdir(parents=True, exist_ok=True)
    borders = [0, *(count * (number**2 + number) // (files**2 + files) for number in range(1, files + 1))]
    names = []
    for number, (start, end) in enumerate(pairwise(borders)):
        path, rows = folder / f"{number}.{kind}", text_rows(count)[start:end]
        if kind == "conll":
            sentences = [f"# topic = {row['topic']}\n" + row["text"].replace(" ", "\n") + "\n" for row in rows]
            write_rows(path, sentences)
        elif kind == "parquet":
            Dataset.from_list(rows).to_parquet(path)
        else:
            write_rows(path, rows)
        names.append(str(path))
    inputs, more = {"text": "text"}, {"path": {"jsonl": "json"}.get(kind, kind)}
    if kind == "conll":
        inputs, more = {"tokens": "word"}, {"path": "conll", "columns": ["word"]}
    return {
        **more,
        "data_files": {"train": names},
        "inputs": inputs,
        "labels": {"topic": "topic"},
        "streaming": True,
    }


AS_THEY_ARE = {"type": "regression", "normalize": False}
"""A regression that needs no statistics of the labels."""


def recipe_of(encoder: str, folder: Path, datasets: dict[str, Row], **sections: Any) -> Row:
    """Return a recipe as plain data."""
    training = {"per_device_train_batch_size": 4, "max_steps": 4, "save_strategy": "no", "use_cpu": True}
    tasks = {task for dataset in datasets.values() for task in dataset["labels"]}
    return {
        "encoder": encoder,
        "output_dir": str(folder / "run"),
        "tasks": {task: kind for task, kind in TYPES.items() if task in tasks},
        "datasets": datasets,
        **sections,
        "training": {**training, **sections.get("training", {})},
    }


def write_recipe(encoder: str, folder: Path, datasets: dict[str, Row], **sections: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(encoder, folder, datasets, **sections), sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def encoder(encoder_folder: Callable[[str], str]) -> str:
    return encoder_folder("bert")


@pytest.fixture
def prepared(encoder: str, tmp_path: Path) -> Callable[..., Run]:
    """(datasets, sections of the recipe) -> the prepared run."""

    def of_datasets(datasets: dict[str, Row], **sections: Any) -> Run:
        return prepare(Recipe.from_dict(recipe_of(encoder, tmp_path, datasets, **sections)))

    return of_datasets


@pytest.fixture
def streamed(prepared: Callable[..., Run], tmp_path: Path) -> Callable[..., EncodedStream]:
    """(kind and number of files, keys of the dataset) -> the stream."""

    def load(kind: str = "jsonl", files: int = 1, count: int = ROWS, **dataset: Any) -> EncodedStream:
        written = write_files(tmp_path / f"{kind}{files}", kind, files, count)
        return prepared({"d": {**written, **dataset}}).streams["d"]

    return load


def number_of(row: Row) -> int:
    """Return the number of a row of `text_rows`: its topic in the stream, otherwise its score."""
    return int(row["label:topic"]) if row.get("label:topic") is not None else int(row["label:score"])


def read_passes(reader: StreamReader, count: int) -> list[list[int]]:
    """Return the numbers of the rows in the first passes of a reader."""
    passes: list[list[int]] = [[] for _ in range(count)]
    while True:
        (row,) = reader.take(1)
        number = reader.state_dict()["pass"]
        if number >= count:
            return passes
        passes[number].append(number_of(row))


# The rows that a process reads


@worlds
@pytest.mark.parametrize(
    ("kind", "files"), [("jsonl", 1), ("jsonl", 4), ("jsonl", 6), ("parquet", 4), ("conll", 1), ("conll", 6)]
)
def test_processes_read_every_row_once_per_pass_in_a_different_order_each_time(streamed, kind, files, world):
    stream = streamed(kind, files, buffer_size=10)
    by_rank = [read_passes(StreamReader(stream, [0, 0], rank, world), 3) for rank in range(world)]
    for shares in zip(*by_rank, strict=True):
        assert sorted(row for share in shares for row in share) == list(range(ROWS))
    for passes in by_rank:
        assert len({tuple(rows) for rows in passes}) == 3


@worlds
def test_each_pass_has_a_different_file_order_and_keeps_the_row_order(streamed, world):
    stream = streamed("jsonl", 6, buffer_size=1)
    file_of = np.repeat(range(6), np.diff([0, *(ROWS * (n**2 + n) // 42 for n in range(1, 7))]))
    orders = []
    for rank in range(world):
        for rows in read_passes(StreamReader(stream, [0, 0], rank, world), 4):
            files = [int(file_of[row]) for row in rows]
            order = list(dict.fromkeys(files))
            assert files == sorted(files, key=order.index), "a file is read as a whole"
            assert all(a < b for a, b in pairwise(rows) if file_of[a] == file_of[b])
            orders.append((rank, tuple(order)))
    assert len(set(orders)) == len(orders)


def test_rows_are_shuffled_in_blocks_of_the_buffer_size(streamed):
    reader = StreamReader(streamed(buffer_size=10), [0, 0], 0, 1)
    passes = [[rows[start : start + 10] for start in range(0, ROWS, 10)] for rows in read_passes(reader, 2)]
    for blocks in passes:
        assert [sorted(block) for block in blocks] == [
            list(range(start, min(start + 10, ROWS))) for start in range(0, ROWS, 10)
        ]
        assert all(block != sorted(block) for block in blocks)
    assert all(first != second for first, second in zip(*passes, strict=True))


def test_order_is_a_function_of_the_seed(streamed):
    stream = streamed(files=4, buffer_size=10)
    first, again, other = (read_passes(StreamReader(stream, [seed, 0], 0, 1), 1) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("kind", "files", "world"),
    [*(("jsonl", files, world) for files in (1, 4) for world in (1, 2, 3)), ("conll", 6, 2), ("parquet", 2, 2)],
)
def test_reader_resumes_exactly_from_any_position(streamed, kind, files, world):
    stream = streamed(kind, files, count=11, buffer_size=3)
    ahead = 6
    for rank in range(world):
        reader, states, rows = StreamReader(stream, [3, 1], rank, world), [], []
        # Every position in two passes and in part of a third, with the borders of blocks and passes.
        while reader.state_dict()["pass"] < 2 or len(states) < 10:
            states.append(json.dumps(reader.state_dict()))
            rows += reader.take(1)
        rows += reader.take(ahead)
        for position, state in enumerate(states):
            other = StreamReader(stream, [3, 1], rank, world)
            other.load_state_dict(json.loads(state))
            assert json.dumps(other.state_dict()) == state
            assert other.take(ahead) == rows[position : position + ahead]


@pytest.mark.parametrize("files", [1, 4])
def test_reader_with_a_different_seed_reads_the_rest_of_the_pass(streamed, files):
    stream = streamed(files=files, buffer_size=10)
    reader, other = (StreamReader(stream, [seed, 0], 0, 1) for seed in (0, 1))
    before = [number_of(row) for row in reader.take(30)]
    other.load_state_dict(json.loads(json.dumps(reader.state_dict())))
    after = [number_of(row) for row in other.take(ROWS - 30)]
    assert sorted(before + after) == list(range(ROWS))
    assert other.state_dict()["pass"] == 0


def test_reader_continues_with_the_next_pass_after_files_shrink(streamed):
    reader = StreamReader(streamed(buffer_size=10), [0, 0], 0, 1)
    reader.take(38)
    shorter = StreamReader(streamed(count=4), [0, 0], 0, 1)
    shorter.load_state_dict(reader.state_dict())
    assert sorted(map(number_of, shorter.take(8))) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert shorter.state_dict()["pass"] >= 2


@pytest.mark.parametrize("world", [1, 2])
def test_reader_resumes_exactly_with_skipped_rows_and_windows(prepared, tmp_path, world):
    """Use a stream of more rows than `datasets` maps at once."""
    rows = [
        {
            "words": ["fox"] * (60 if number % 50 == 0 else 1 + number % 5),
            "pos": None,
            "topic": None if number % 7 == 3 else f"{number % 10}",
        }
        for number in range(1050)
    ]
    for row in rows[::50]:
        row["pos"] = ["N"] * 60
    file = write_rows(tmp_path / "a.jsonl", rows)
    dataset = {"path": "json", "data_files": {"train": file}, "inputs": {"tokens": "words"}}
    dataset |= {"labels": {"pos": "pos", "topic": "topic"}, "streaming": True, "buffer_size": 250}
    stream = prepared({"d": dataset}).streams["d"]
    reader, states, taken = StreamReader(stream, [0, 0], world - 1, world), [], []
    for count in (249, 1, 700 // world, 400):
        taken += reader.take(count)
        states.append((len(taken), json.dumps(reader.state_dict())))
    taken += reader.take(100)
    assert reader.state_dict()["pass"] > 0
    for position, state in states:
        other = StreamReader(stream, [0, 0], world - 1, world)
        other.load_state_dict(json.loads(state))
        assert other.take(100) == taken[position : position + 100]


@pytest.mark.parametrize("files", [1, 2])
def test_process_without_rows_is_reported(streamed, files):
    stream = streamed(files=files, count=2)
    with pytest.raises(DataError, match=r"^d/train: process 2 of 3 gets no rows\. .*use fewer processes"):
        StreamReader(stream, [0, 0], 2, 3).take(1)


def test_pass_with_only_empty_files_for_a_process_is_skipped(prepared, tmp_path):
    rows = text_rows(4)
    hidden = [{**row, "topic": None} for row in rows]
    dataset = write_files(tmp_path, "jsonl", 1)
    parts = enumerate((rows, hidden, hidden, rows))
    dataset["data_files"]["train"] = [write_rows(tmp_path / f"{number}.jsonl", part) for number, part in parts]
    stream = prepared({"d": dataset}).streams["d"]
    sizes: list[int] = []
    for seed in range(6):
        reader = StreamReader(stream, [seed, 0], 1, 2)
        try:
            reader.take(1)
        except DataError:
            continue
        sizes += (len(numbers) for numbers in read_passes(reader, 8)[1:])
    assert set(sizes) == {0, 4, 8}


# The content of a stream


def pos_rows(count: int) -> list[Row]:
    """Return rows, some long, some without one or both labels, and some with a span to repair."""
    return [
        {
            "words": WORDS[: 1 + number % 9] * (8 if number % 10 == 4 else 1),
            "topic": None if number % 3 == 0 else "ab"[number % 2],
            "pos": None
            if number % 6 in {0, 1}
            else ["NV"[number % 2]] * (1 + number % 9) * (8 if number % 10 == 4 else 1),
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("inputs", [{"tokens": "words"}, {"text": "a", "text_pair": "b"}])
def test_stream_has_the_windows_labels_and_rows_of_the_loaded_dataset(prepared, tmp_path, inputs):
    labels = {"topic": "topic", **({"pos": "pos"} if "tokens" in inputs else {})}
    rows = [{**row, "a": row["words"][0], "b": " ".join(row["words"])} for row in pos_rows(60)]
    file = write_rows(tmp_path / "a.jsonl", rows)
    dataset = {"path": "json", "data_files": {"train": file}, "inputs": inputs, "labels": labels}
    whole, run = prepared({"d": dataset}), prepared({"d": {**dataset, "streaming": True}})
    stream, encoded = run.streams["d"], whole.splits["train"]["d"]
    assert list(stream.windows) == encoded.windows.to_list()
    assert encoded.unlabelled == (10 if "pos" in labels else 20)
    if "pos" in labels:
        assert encoded.extra_windows > 0
    assert (stream.num_rows, stream.num_windows, stream.feeds) == (60, 60, encoded.feeds)
    assert {name: task.labels for name, task in run.tasks.items()} == {n: t.labels for n, t in whole.tasks.items()}
    assert (run.splits, list(run.train)) == ({}, ["d"])


def test_csv_types_come_from_the_first_rows_even_without_labels_there(prepared, tmp_path):
    lines = ["text,topic,score", *["fox,,1"] * 150, *["dog,NA,2.5"] * 10]
    dataset = {"path": "csv", "data_files": {"train": write_rows(tmp_path / "a.csv", lines)}}
    dataset |= {"inputs": {"text": "text"}, "labels": {"topic": "topic", "score": "score"}}
    # The stream first: `datasets` would know the types from the cache of the loaded dataset.
    run, whole = prepared({"d": {**dataset, "streaming": True}}), prepared({"d": dataset})
    assert run.tasks == whole.tasks
    assert list(run.streams["d"].windows) == whole.splits["train"]["d"].windows.to_list()


def test_rows_and_label_names_are_counted_unless_known(prepared, tmp_path):
    features = Features({"words": List(Value("string")), "pos": List(ClassLabel(names=["V", "N", "X"]))})
    path = tmp_path / "a.parquet"
    Dataset.from_dict({"words": [["fox"]] * 9, "pos": [[1]] * 9}, features=features).to_parquet(path)
    dataset = {"path": "parquet", "data_files": {"train": str(path)}, "inputs": {"tokens": "words"}}
    dataset |= {"labels": {"pos": "pos"}, "streaming": True}
    given, counted = prepared({"d": {**dataset, "num_rows": 7}}), prepared({"d": dataset})
    assert given.tasks["pos"].labels == counted.tasks["pos"].labels == ("V", "N", "X")
    assert (given.streams["d"].num_rows, counted.streams["d"].num_rows) == (7, 9)
    assert given.notes == ["d/train: streamed, 7 rows (from `num_rows`)"]
    assert counted.notes == ["d/train: streamed, 9 rows (counted; set `num_rows` to skip the count)"]
    assert len(read_rows(given.streams["d"])) == 9, "a pass ends where the rows end"


def read_rows(stream: EncodedStream) -> list[Row]:
    """Return the rows of the first pass."""
    reader, rows = StreamReader(stream, [0, 0], 0, 1), []
    while True:
        rows += reader.take(1)
        if reader.state_dict()["pass"]:
            return rows[:-1]


def test_stream_can_lack_all_labels_of_a_task_of_another_dataset(prepared, tmp_path):
    hidden = write_rows(tmp_path / "a.jsonl", text_rows(9, topic=None))
    shown = write_rows(tmp_path / "b.jsonl", text_rows(9))
    labels = {"topic": "topic", "score": "score"}
    common = {"path": "json", "inputs": {"text": "text"}, "labels": labels}
    datasets = {
        name: {**common, "data_files": {"train": file}} for name, file in (("hidden", hidden), ("shown", shown))
    }
    whole = prepared(datasets)
    run = prepared({**datasets, "hidden": {**datasets["hidden"], "streaming": True}})
    assert run.tasks == whole.tasks


# The batches of a mixture with streams


NAMES = ("map", "stream", "few")


@pytest.fixture(scope="module")
def mixed_run(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A stream of 47 rows with topics in 4 files, and datasets of 30 and 9 rows with scores: 0 to 29, 100 to 108."""
    folder = tmp_path_factory.mktemp("mixed")
    common = {"path": "json", "inputs": {"text": "text"}, "labels": {"score": "score"}}
    rows = {"map": text_rows(30), "few": text_rows(9, first=100)}
    datasets = {
        name: {**common, "data_files": {"train": write_rows(folder / f"{name}.jsonl", part)}}
        for name, part in rows.items()
    }
    datasets["stream"] = {**write_files(folder / "s", "jsonl", 4), "buffer_size": 10}
    recipe = recipe_of(encoder, folder, {name: datasets[name] for name in NAMES})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_DATASETS_CACHE", folder / "cache")
        return prepare(Recipe.from_dict(recipe))


def dataset_of(row: Row) -> int:
    """Return the number of the row's dataset in `mixed_run`."""
    if row.get("label:topic") is not None:
        return NAMES.index("stream")
    return NAMES.index("few" if row["label:score"] >= 100 else "map")


def sampler_of(mixed: TaskMixture, world: int = 1, rank: int = 0, rows: int = 4, **options: Any) -> MixtureBatchSampler:
    return MixtureBatchSampler(mixed, rows, process_index=rank, num_processes=world, **options)


def epochs_of(sampler: MixtureBatchSampler, count: int) -> list[list[Batch]]:
    """Return the batches of the first epochs as in training, each with its state as JSON."""
    stream, state, epochs = MixtureStream(sampler), None, []
    for number in range(count):
        stream.start_at(number, 0, state)
        epochs.append([(rows, json.loads(json.dumps(after))) for rows, after in stream])
        state = epochs[-1][-1][1]
    return epochs


def by_window(batches: Sequence[Batch]) -> dict[int, list[list[Row]]]:
    """Return the batches of each window, in order."""
    windows: dict[int, list[list[Row]]] = {}
    for rows, state in batches:
        windows.setdefault(state["window"], []).append(rows)
    return windows


@worlds
@batchings
def test_every_process_has_the_batches_of_the_sampler_and_none_is_empty(mixed_run, world, batching):
    mixed = TaskMixture(mixed_run.train, [5, 0.5], batching=batching, length_window=3)
    for rank in range(world):
        sampler = sampler_of(mixed, world, rank)
        sampler.total_batches = 3 * len(sampler)
        epochs = epochs_of(sampler, 3)
        assert [len(batches) for batches in epochs] == [len(sampler)] * 3 == [len(MixtureStream(sampler))] * 3
        for batches in epochs:
            sizes = [len(rows) for rows, _ in batches]
            assert all(1 <= size <= 5 for size in sizes)
            if batching == "homogeneous":
                assert set(sizes) == {4}


@worlds
@batchings
@pytest.mark.parametrize("temperature", [3, [5, 0.5]])
def test_datasets_are_within_1_row_of_their_share_after_every_window(mixed_run, world, batching, temperature):
    """Count rows, or steps if batches are homogeneous."""
    mixed = TaskMixture(mixed_run.train, temperature, batching=batching, length_window=3)
    samplers = [sampler_of(mixed, world, rank) for rank in range(world)]
    for sampler in samplers:
        sampler.total_batches = 3 * len(sampler)
    ranks = [by_window([batch for epoch in epochs_of(sampler, 3) for batch in epoch]) for sampler in samplers]
    unit = 4 * world if batching == "homogeneous" else 1
    length = len(samplers[0]) if batching == "homogeneous" else len(mixed)
    turns, due, had = 0.0, np.zeros(3), np.zeros(3)
    assert {tuple(windows) for windows in ranks} == {tuple(range(len(ranks[0])))}
    for window in ranks[0]:
        rows = [row for windows in ranks for batch in windows[window] for row in batch]
        size = len(rows) / unit
        due += size * mixed.probabilities_at((turns + size / 2) / (3 * length))
        turns += size
        had += np.bincount([dataset_of(row) for row in rows], minlength=3) / unit
        assert np.abs(had - due).max() < 1.0
    assert turns == 3 * length


@pytest.mark.parametrize("world", [2, 3])
def test_homogeneous_step_has_rows_of_one_dataset_in_all_processes(mixed_run, world):
    mixed = TaskMixture(mixed_run.train, 2, batching="homogeneous", length_window=4)
    ranks = [epochs_of(sampler_of(mixed, world, rank), 3) for rank in range(world)]
    steps = [step for epochs in zip(*ranks, strict=True) for step in zip(*epochs, strict=True)]
    found = [{dataset_of(row) for rows, _ in step for row in rows} for step in steps]
    assert {len(numbers) for numbers in found} == {1}
    assert set().union(*found) == {0, 1, 2}


@worlds
@batchings
def test_rows_are_grouped_by_length_in_a_window_and_steps_are_shuffled(mixed_run, world, batching):
    mixed = TaskMixture(mixed_run.train, batching=batching, length_window=5)
    orders = []
    for rank in range(world):
        (batches,) = epochs_of(sampler_of(mixed, world, rank), 1)
        for window in by_window(batches).values():
            pools: dict[int, list[tuple[int, int]]] = {}
            for rows in window:
                lengths = [row["length"] for row in rows]
                pool = dataset_of(rows[0]) if batching == "homogeneous" else 0
                pools.setdefault(pool, []).append((max(lengths), min(lengths)))
            for spans in pools.values():
                orders.append(spans)
                descending = sorted(spans, reverse=True)
                assert all(shortest >= longest for (_, shortest), (longest, _) in pairwise(descending))
    assert any(order != sorted(order, reverse=True) for order in orders)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_have_rows_of_similar_length_at_each_step(prepared, tmp_path, world):
    rows = [{"text": " ".join(["fox"] * (1 + number * 17 % 40)), "topic": "ab"[number % 2]} for number in range(900)]
    dataset = {**write_files(tmp_path, "jsonl", 1), "data_files": {"train": write_rows(tmp_path / "a.jsonl", rows)}}
    mixed = TaskMixture(prepared({"d": dataset}).train, length_window=50)
    ranks = [epochs_of(sampler_of(mixed, world, rank), 1)[0] for rank in range(world)]
    longest = np.array([[max(row["length"] for row in rows) for rows, _ in batches] for batches in ranks])
    assert np.ptp(longest) > 30
    assert np.ptp(longest, axis=0).mean() < 2.5


@worlds
@batchings
def test_mixture_follows_the_sampler_for_datasets_and_the_reader_for_streams(mixed_run, world, batching):
    mixed = TaskMixture(mixed_run.train, 2, batching=batching, length_window=3)
    samplers = [sampler_of(mixed, world, rank) for rank in range(world)]
    ranks = [by_window([batch for epoch in epochs_of(sampler, 3) for batch in epoch]) for sampler in samplers]
    readers = [StreamReader(mixed_run.streams["stream"], [0, 1], rank, world) for rank in range(world)]
    read: list[list[int]] = [[] for _ in readers]
    seen = Counter[int]()
    for window in samplers[0].windows():
        if window.number not in ranks[0]:
            break
        rows_of = [[row for batch in windows[window.number] for row in batch] for windows in ranks]
        for number, first in ((0, 0), (2, 100)):
            walked = samplers[0].walk(number, int(window.drawn[number]), int(window.counts[number]))
            found = [number_of(row) for rows in rows_of for row in rows if dataset_of(row) == number]
            assert sorted(found) == sorted(first + walked)
            seen.update(found)
        for rank, rows in enumerate(rows_of):
            read[rank].append(sorted(number_of(row) for row in rows if dataset_of(row) == 1))
    for numbers in (range(30), range(100, 109)):
        assert max(seen[number] for number in numbers) <= 1 + min(seen[number] for number in numbers)
    # Sequentially, since the readers of one process would share a source.
    for reader, taken in zip(readers, read, strict=True):
        assert [sorted(map(number_of, reader.take(len(rows)))) for rows in taken] == taken


def test_rows_of_equal_length_are_mixed_over_datasets(prepared, tmp_path):
    common = {"path": "json", "inputs": {"text": "text"}}
    files = [write_rows(tmp_path / f"{name}.jsonl", text_rows(64, text="the fox")) for name in "ab"]
    datasets = {
        "a": {**common, "labels": {"topic": "topic"}, "data_files": {"train": files[0]}, "streaming": True},
        "b": {**common, "labels": {"score": "score"}, "data_files": {"train": files[1]}},
    }
    mixed = TaskMixture(prepared(datasets).train)
    (batches,) = epochs_of(sampler_of(mixed, rows=8), 1)
    streamed = [sum(row.get("label:topic") is not None for row in rows) for rows, _ in batches]
    assert sum(streamed) == 64
    assert all(0 < count < 8 for count in streamed)


@worlds
@batchings
def test_loader_resumes_exactly_from_any_batch(mixed_run, world, batching):
    """Resume inside and at the borders of windows, epochs and passes; None stands for each skipped batch."""
    mixed = TaskMixture(mixed_run.train, [5, 0.5], batching=batching, length_window=3)
    for rank in range(world):
        sampler = sampler_of(mixed, world, rank)
        sampler.total_batches = 3 * len(sampler)
        epochs = epochs_of(sampler, 3)
        trained: list[Batch] = []
        for number, batches in enumerate(epochs):
            for passed in range(0, len(batches) + 1, 1 if rank == world - 1 == 1 else 5):
                stream = MixtureStream(sampler)
                done = [*trained, *batches[:passed]]
                stream.start_at(number, passed, done[-1][1] if done else None)
                assert list(stream) == [None] * passed + batches[passed:]
            trained += batches


def test_without_a_state_streams_restart_and_other_datasets_continue(mixed_run):
    mixed = TaskMixture(mixed_run.train, length_window=3)
    sampler = sampler_of(mixed)
    first, second = epochs_of(sampler, 2)
    stream = MixtureStream(sampler)
    stream.start_at(1, 0, None)
    batches = list(stream)

    def numbers(of: Sequence[Batch], datasets: set[int]) -> list[int]:
        return sorted(number_of(row) for rows, _ in of for row in rows if dataset_of(row) in datasets)

    assert numbers(batches, {0, 2}) == numbers(second, {0, 2})
    reader = StreamReader(mixed_run.streams["stream"], [0, 1], 0, 1)
    assert numbers(batches, {1}) == sorted(number_of(row) for row in reader.take(len(numbers(second, {1}))))
    assert len(batches) == len(first)


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8)])
def test_changed_settings_resume_from_the_positions_of_the_streams(mixed_run, before, after):
    """Check the positions of the streams and the number of remaining batches of the epoch."""
    mixed, other = (TaskMixture(mixed_run.train, length_window=window) for window in (3, 2))
    compared = 0
    states = {state["window"]: state for _, state in epochs_of(sampler_of(mixed, rows=before), 2)[1]}
    for state in list(states.values())[::3]:
        stream = MixtureStream(sampler_of(other, rows=after))
        for passed in (1, len(stream) - 1, 0):
            stream.start_at(1, passed, state)
            batches = [batch for batch in stream if batch is not None]
            assert len(batches) == len(stream) - passed
        if state["window"] >= batches[0][1]["window"]:
            reader = StreamReader(mixed_run.streams["stream"], [0, 1], 0, 1)
            reader.load_state_dict(state["readers"]["stream"])
            rows = [row for rows in by_window(batches)[batches[0][1]["window"]] for row in rows]
            found = sorted(number_of(row) for row in rows if dataset_of(row) == 1)
            assert found == sorted(number_of(row) for row in reader.take(len(found)))
            compared += 1
    assert compared or before > after


# Reading: not too far ahead, by one worker, over HTTP

READ = Counter[str]()


def _endless() -> Iterator[Row]:
    number = 0
    while True:
        READ["rows"] += 1
        yield {"text": WORDS[number % 12], "score": float(number)}
        number += 1


def test_reading_ahead_is_limited_to_a_window_a_buffer_and_one_mapped_batch(tokenizers):
    """Train on a stream without end."""
    tasks = {"score": task_from_dict({"name": "score", "type": "regression"})}
    source = IterableDataset.from_generator(
        _endless, features=Features({"text": Value("string"), "score": Value("float64")})
    )
    rows = canonical_rows(source, "d/train", inputs={"text": "text"}, labels={"score": "score"}, tasks=tasks)
    READ.clear()
    options: dict[str, Any] = {"reads_words": False, "max_length": 48, "stride": None}
    stream = encode_stream("d/train", rows, tasks, tokenizers["wordpiece"], num_rows=10**6, buffer_size=700, **options)
    assert READ["rows"] == 1000, "for the lengths"
    READ.clear()
    batches = iter(MixtureStream(sampler_of(TaskMixture({"d": stream}, length_window=10), rows=16)))
    for number in range(1, 151):
        rows_of_batch, state = next(batches)
        assert len(rows_of_batch) == 16
        needed = -(-number // 10) * 160
        assert needed <= READ["rows"] < needed + 700 + 1000
    READ.clear()
    other = MixtureStream(sampler_of(TaskMixture({"d": stream}, length_window=10), rows=16))
    other.start_at(0, 149, state)
    assert [batch for _, batch in zip(range(150), other, strict=False)][-1] == (rows_of_batch, state)


@pytest.fixture
def datasets(tmp_path: Path) -> dict[str, Row]:
    """A streamed dataset of 60 rows with held-out splits, and a smaller dataset that is not streamed."""
    topics = [{**row, "topic": "abc"[number % 3]} for number, row in enumerate(text_rows(60))]
    files = {
        split: write_rows(tmp_path / f"{split}.jsonl", rows)
        for split, rows in zip(("train", "validation", "test"), (topics, topics[:11], topics[:13]), strict=True)
    }
    common = {"path": "json", "inputs": {"text": "text"}}
    small = write_rows(tmp_path / "small.jsonl", text_rows(20))
    return {
        "big": {**common, "data_files": files, "labels": {"topic": "topic"}, "streaming": True, "buffer_size": 16},
        "small": {**common, "data_files": {"train": small, "test": small}, "labels": {"score": "score"}},
    }


def epochs_of_trainer(run: Run, count: int) -> list[list[list[list[int]]]]:
    """Return the inputs of the first epochs from the data loader of the trainer."""
    trainer = build_trainer(run, build_model(run), training_arguments(run.recipe))
    loader, state, epochs = trainer.get_train_dataloader(), None, []
    for number in range(count):
        loader.dataset.start_at(number, 0, state)
        batches = list(loader)
        state = batches[-1][1]
        epochs.append([batch["input_ids"].tolist() for batch, _ in batches])
    return epochs


def test_worker_gives_the_same_batches(prepared, datasets):
    first, second = (
        epochs_of_trainer(prepared(datasets, training={"dataloader_num_workers": workers}), 2) for workers in (0, 1)
    )
    assert first == second
    assert first[0] != first[1]


def test_persistent_worker_gives_the_same_batches(prepared, datasets):
    persistent = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    first, second = (epochs_of_trainer(prepared(datasets, training=training), 2) for training in ({}, persistent))
    assert first == second


def test_streamed_mixture_never_needs_the_lengths_of_all_rows(encoder, tmp_path, datasets, monkeypatch):
    def asked(mixed: TaskMixture) -> None:
        raise AssertionError("a stream has only the lengths of its first rows")

    monkeypatch.setattr(TaskMixture, "lengths", property(asked))
    assert main(["train", write_recipe(encoder, tmp_path, datasets, training={"max_steps": 2})]) == 0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the HTTP address that serves the folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_files_are_streamed_over_http(prepared, served, tmp_path):
    folder, address = served
    dataset = write_files(folder, "jsonl", 2)
    remote = {**dataset, "data_files": {"train": [f"{address}/{number}.jsonl" for number in range(2)]}}
    streams = [prepared({"d": either}).streams["d"] for either in (dataset, remote)]
    first, second = (read_passes(StreamReader(stream, [0, 0], 0, 1), 2) for stream in streams)
    assert first == second


# Commands


def test_plan_reports_the_stream(encoder, tmp_path, datasets, capsys):
    assert main(["plan", write_recipe(encoder, tmp_path, datasets)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert "note: big/train: streamed, 60 rows (counted; set `num_rows` to skip the count)" in lines
    words = {line.split()[0]: line.split() for line in lines if line}
    assert words["big"][1:7] == ["60", "11", "13", "0.75", "60", "0.2"]
    assert words["small"][1:7] == ["20", "0", "20", "0.25", "20", "0.2"]
    assert "20 steps per epoch with 4 rows each, 4 steps in total." in lines
    assert "padding" not in printed.out


def test_streamed_recipe_trains_logs_and_evaluates(encoder, tmp_path, datasets, capsys):
    training = {"max_steps": 30, "eval_strategy": "epoch", "logging_steps": 5}
    recipe = write_recipe(encoder, tmp_path, datasets, training=training, mixture={"length_window": 4})
    assert main(["train", recipe]) == 0
    printed = capsys.readouterr().out
    for key in (" loss ", "topic ", "score ", " rows/s", "topic accuracy 0.", "mtl_score"):
        assert key in printed
    run = tmp_path / "run"
    scores = json.loads((run / "results.json").read_text())["tasks"]
    assert set(scores) == {"topic", "score"}
    for split, tasks in (("test", {"topic", "score"}), ("validation", {"topic"})):
        output = str(tmp_path / f"{split}.json")
        assert main(["evaluate", str(run), "--recipe", recipe, "--split", split, "--output", output]) == 0
        found = json.loads(Path(output).read_text())["tasks"]
        assert {task for task, values in found.items() if values} == tasks
    assert json.loads((tmp_path / "test.json").read_text())["tasks"] == scores
    refused = fails(capsys, "evaluate", str(run), "--recipe", recipe, "--split", "train")
    assert "datasets.big.streaming: a streamed split cannot be evaluated. Leave out `streaming`." in refused


@pytest.mark.parametrize(("workers", "interruptions"), [(0, (14, 21)), (1, (14,))])
def test_interrupted_run_ends_like_an_uninterrupted_run(encoder, tmp_path, datasets, workers, interruptions):
    training = {"max_steps": 28, "save_strategy": "steps", "save_steps": 7, "learning_rate": 1e-3}
    training["dataloader_num_workers"] = workers
    recipe = write_recipe(encoder, tmp_path, datasets, training=training, mixture={"length_window": 2})
    assert main(["train", recipe]) == 0
    run = tmp_path / "run"
    whole = load_file(run / "model.safetensors")

    def cut_off_after(step: int) -> None:
        for folder in run.glob("checkpoint-*"):
            if int(folder.name.removeprefix("checkpoint-")) > step:
                shutil.rmtree(folder)

    # An epoch has 20 steps. Each run resumes from the checkpoint that the interrupted run has written.
    for step in interruptions:
        cut_off_after(step)
        assert main(["train", recipe, "--resume"]) == 0
        again = load_file(run / "model.safetensors")
        assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 2}),
        ({"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 1}),
        ({}, {"ignore_data_skip": True}),
    ],
)
def test_run_resumes_with_changed_settings(encoder, tmp_path, datasets, before, after):
    saved = {"save_strategy": "steps", "save_steps": 12}
    for more, steps, training in (([], 12, before), (["--resume"], 26, after)):
        training = {**saved, **training, "max_steps": steps}
        recipe = write_recipe(encoder, tmp_path, datasets, training=training, mixture={"length_window": 3})
        assert main(["train", recipe, *more]) == 0


def test_held_out_splits_of_a_stream_are_loaded_completely(prepared, datasets):
    run = prepared({"big": datasets["big"]})
    assert list(run.splits) == ["validation", "test"]
    assert [split["big"].num_rows for split in run.splits.values()] == [11, 13]
    files = datasets["big"]["data_files"]
    whole = prepared({"big": {key: datasets["big"][key] for key in ("path", "data_files", "inputs", "labels")}})
    assert whole.splits["test"]["big"].windows.to_list() == run.splits["test"]["big"].windows.to_list()
    assert files.keys() == {"train", *run.splits}


@pytest.mark.parametrize("kind", ["jsonl", "conll"])
def test_evaluation_reads_only_the_evaluated_split_of_a_streamed_recipe(encoder, tmp_path, kind):
    dataset = {**write_files(tmp_path / "a", kind, 1, 9)}
    dataset["data_files"]["test"] = dataset["data_files"]["train"]
    assert main(["train", write_recipe(encoder, tmp_path, {"d": dataset})]) == 0
    del dataset["data_files"]["train"]
    # The validation split is not read: its text is not valid.
    dataset["data_files"]["validation"] = write_rows(tmp_path / "bad", [{"text": 5, "topic": "a"}])
    assert main(["evaluate", str(tmp_path / "run"), "--recipe", write_recipe(encoder, tmp_path, {"d": dataset})]) == 0


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("big", "validation_size", 5, "datasets.big: a stream cannot be split. Leave out"),
        ("small", "num_rows", 20, "datasets.small: `num_rows` needs `streaming: true`"),
        ("small", "buffer_size", 20, "datasets.small: `buffer_size` needs `streaming: true`"),
        ("big", "num_rows", 0, "datasets.big.num_rows: should be at least 1. Found 0"),
        ("big", "buffer_size", 0, "datasets.big.buffer_size: should be at least 1. Found 0"),
        ("big", "num_rows", 60, "datasets.big.num_rows: the label names of task 'topic' are only known when all rows"),
        ("training", "max_tokens_per_batch", 99, "training: `max_tokens_per_batch` needs the lengths of all rows"),
        ("training", "dataloader_num_workers", 2, "training: `dataloader_num_workers` should be 0 or 1"),
    ],
)
def test_settings_unsupported_by_streams_are_refused_in_one_line(
    encoder, tmp_path, datasets, capsys, section, key, value, message
):
    training = {key: value} if section == "training" else {}
    if section != "training":
        datasets[section][key] = value
    recipe = write_recipe(encoder, tmp_path, datasets, training=training)
    for command in ("plan", "train"):
        assert message in fails(capsys, command, recipe)


@pytest.mark.parametrize(
    ("bad", "workers", "message"),
    [
        ({"text": None, "score": 1.0}, 0, "d/train, row 1100: no text in column 'text'."),
        ({"text": None, "score": 1.0}, 1, "d/train, row 1100: no text in column 'text'."),
        ('{"text":', 0, "d/train: cannot be read: ArrowInvalid: JSON parse error"),
    ],
)
def test_with_num_rows_a_late_bad_row_is_named_when_training_reaches_it(
    encoder, tmp_path, capsys, bad, workers, message
):
    rows = [{"text": row["text"], "score": row["score"]} for row in text_rows(1300)]
    # A file that cannot be parsed is reported at its start.
    parts = [rows[:1100], [bad, *rows[1100:]]] if isinstance(bad, str) else [[*rows[:1100], bad, *rows[1100:]]]
    files = [write_rows(tmp_path / f"{number}.jsonl", part) for number, part in enumerate(parts)]
    test = write_rows(tmp_path / "test.jsonl", rows[:5])
    dataset = {"path": "json", "inputs": {"text": "text"}, "labels": {"score": "score"}, "streaming": True}
    dataset |= {"data_files": {"train": files, "test": test}, "num_rows": 1301, "buffer_size": 100}
    dataset["on_missing_text"] = "error"
    training = {"per_device_train_batch_size": 64, "max_steps": 24, "dataloader_num_workers": workers}
    sections = {"mixture": {"length_window": 2}, "training": training, "tasks": {"score": AS_THEY_ARE}}
    recipe = write_recipe(encoder, tmp_path, {"d": dataset}, **sections)
    assert main(["train", recipe]) == 2
    printed = capsys.readouterr()
    assert "note: d/train: streamed, 1301 rows (from `num_rows`)" in printed.out, "nothing was noticed before"
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": "bad.jsonl", "test": "good.jsonl"}, "d/train, row 1: no text in column 'text'."),
        ({"train": ["good.jsonl", "broken.jsonl"]}, "broken.jsonl, line 1: not valid JSON"),
        ({"train": "good.jsonl", "test": "broken.jsonl"}, "broken.jsonl, line 1: not valid JSON"),
        ({"train": "good.jsonl", "test": "empty.jsonl"}, "empty.jsonl: the file is empty."),
        ({"train": "empty.jsonl", "test": "good.jsonl"}, "empty.jsonl: the file is empty."),
        ({"train": "hidden.jsonl"}, "Task 'topic': no training row of d has a label"),
        ({"train": "none.jsonl"}, "datasets.d.data_files.train: no file"),
    ],
)
def test_file_that_cannot_be_streamed_is_refused_in_one_line(encoder, tmp_path, capsys, files, message):
    good = text_rows(5)
    contents = {"good": good, "empty": [], "bad": [good[0], {**good[1], "text": None}], "broken": ['{"text":']}
    for name, rows in {**contents, "hidden": text_rows(5, topic=None)}.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    paths = {
        split: [str(tmp_path / name) for name in ([names] if isinstance(names, str) else names)]
        for split, names in files.items()
    }
    dataset = {"path": "json", "data_files": paths, "inputs": {"text": "text"}, "labels": {"topic": "topic"}}
    recipe = write_recipe(encoder, tmp_path, {"d": {**dataset, "streaming": True, "on_missing_text": "error"}})
    assert message in fails(capsys, "plan", recipe)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"text": None, "score": 1.0}, "d/train, row 5: no text in column 'text'."),
        ('{"text":', "d/train: cannot be read: ArrowInvalid: JSON parse error"),
    ],
)
def test_with_num_rows_an_early_bad_row_is_named_at_once(encoder, tmp_path, capsys, bad, message):
    files = [write_rows(tmp_path / f"{number}.jsonl", rows) for number, rows in enumerate((text_rows(5), [bad]))]
    dataset = {"path": "json", "data_files": {"train": files}, "inputs": {"text": "text"}, "labels": {"score": "score"}}
    dataset |= {"streaming": True, "num_rows": 6, "on_missing_text": "error"}
    recipe = write_recipe(encoder, tmp_path, {"d": dataset}, tasks={"score": AS_THEY_ARE})
    assert message in fails(capsys, "plan", recipe)
    recipe = write_recipe(encoder, tmp_path, {"d": dataset})
    assert "`normalize: true` of task 'score' needs all training labels" in fails(capsys, "plan", recipe)


def test_bad_line_of_a_streamed_column_file_is_named(encoder, tmp_path, capsys):
    dataset = write_files(tmp_path, "conll", 1)
    write_rows(tmp_path / "0.conll", ["# topic = a\nfox", "", "dog N"])
    assert "0.conll, line 4: expected 1 columns (word), found 2" in fails(
        capsys, "plan", write_recipe(encoder, tmp_path, {"d": dataset})
    )
