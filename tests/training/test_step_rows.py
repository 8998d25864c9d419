"""The rows of a step that are found again are the rows that the step was trained on."""

from __future__ import annotations

import itertools

import pytest
from datasets import Dataset
from toy_splits import TASKS, WORDS, build_split
from watched_training import Fetching

from mtl_nlp import TaskMixture, encode
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.training.step_rows import BegunEpoch, describe_rows, rows_of_step


def positions_in(mixture: TaskMixture, found: dict[str, list[int]]) -> list[int]:
    numbers = {name: number for number, name in enumerate(mixture.datasets)}
    return sorted(int(mixture.offsets[numbers[name]]) + row for name, rows in found.items() for row in rows)


@pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3}, {"max_tokens_per_batch": 60}])
@pytest.mark.parametrize("skips", [True, False])
def test_rows_are_those_that_the_step_was_trained_on(trainer_of, disjoint, tmp_path, batching, settings, skips):
    settings = {"per_device_train_batch_size": 3, "num_train_epochs": 3, "logging_strategy": "no", **settings}
    accumulated = settings.get("gradient_accumulation_steps", 1)
    first = trainer_of(
        disjoint, save_strategy="steps", save_steps=3, save_total_limit=1, **{**settings, "max_steps": 3}
    )
    first.train_dataset = Fetching(disjoint, batching=batching)
    second = trainer_of(disjoint, **settings, ignore_data_skip=not skips)
    second.train_dataset = Fetching(disjoint, batching=batching)
    for trainer, resume, done in ((first, None, 0), (second, str(tmp_path / "run" / "checkpoint-3"), 3)):
        trainer.train(resume_from_checkpoint=resume)
        begun, fetched = trainer.epochs.begun, list(trainer.train_dataset.fetched)
        ends = [epoch.step for epoch in begun[1:]] + [trainer.state.global_step]
        for epoch, end in zip(begun, ends, strict=True):
            for step in range(epoch.step + 1, end + 1):
                found = rows_of_step(epoch, step, accumulated, [0])
                count = min(accumulated, len(epoch.sampler) - epoch.batches - (step - 1 - epoch.step) * accumulated)
                trained, fetched = fetched[:count], fetched[count:]
                assert positions_in(trainer.train_dataset, found) == sorted(itertools.chain(*trained))
        assert trainer.state.global_step > done


def test_processes_have_their_own_rows(disjoint):
    mixture = TaskMixture(disjoint)
    samplers = [MixtureBatchSampler(mixture, 4, process_index=rank, num_processes=2) for rank in (0, 1)]
    for rank, sampler in enumerate(samplers):
        sampler.set_epoch(1)
        batches = list(sampler)
        begun = BegunEpoch(samplers[0], 1, 10, 2)
        assert positions_in(mixture, rows_of_step(begun, 11, 2, [rank])) == sorted(batches[2] + batches[3])
    both = rows_of_step(BegunEpoch(samplers[0], 1, 10, 2), 11, 2, [0, 1])
    assert len(positions_in(mixture, both)) == 16


def test_description_names_at_most_ten_rows_with_a_label_of_the_tasks(disjoint):
    mixture = TaskMixture(disjoint)
    positions = {"words": [4, 2], "texts": list(range(15))}
    assert describe_rows(mixture, positions, []) == "rows 2, 4 of d; rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more of d"
    assert describe_rows(mixture, positions, ["pos", "ner"]) == "rows 2, 4 of d"
    assert describe_rows(mixture, {"texts": [3]}, ["score"]) == "row 3 of d"
    assert describe_rows(mixture, {"texts": [3]}, ["pos"]) == ""


def test_windows_of_a_text_are_one_row_and_unlabelled_texts_are_left_out(tokenizer):
    split = build_split(tokenizer, 5, [90, 3, 120], {"pos": lambda n: n > 3, "topic": lambda n: n < 100})
    mixture = TaskMixture({"d": split})
    everything = {"d": list(range(len(mixture)))}
    assert describe_rows(mixture, everything, []) == "rows 0, 1, 2 of d"
    assert describe_rows(mixture, everything, ["pos"]) == "rows 0, 2 of d"
    assert describe_rows(mixture, everything, ["topic"]) == "rows 0, 1 of d"


def test_streams_are_named_without_rows(tokenizer, disjoint):
    rows = Dataset.from_dict({"tokens": [WORDS[:4]] * 8, "score": [1.0] * 8}).to_iterable_dataset()
    stream = encode(
        rows, inputs={"tokens": "tokens"}, labels={"score": "score"}, tasks=[*TASKS.values()], tokenizer=tokenizer,
        name="s/train", num_rows=8,
    )  # fmt: skip
    mixture = TaskMixture({"s": stream, "words": disjoint["words"]})
    begun = BegunEpoch(MixtureBatchSampler(mixture, 4), 0, 0, 0)
    assert rows_of_step(begun, 1, 1, [0]) is None
    assert describe_rows(mixture, None, ["score"]) == "rows of s/train (a stream has no row numbers)"
    assert describe_rows(mixture, None, []) == "rows of s/train, d (a stream has no row numbers)"
