"""The counts of a step over all processes, which each process finds from the rows alone."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from toy_splits import TASKS, build_split
from trainers import adapted_model, build_model

from mtl_nlp import MultitaskDataCollator, TaskMixture, TokenClassification
from mtl_nlp.errors import DataError
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.training.counting import CountedBatch, Counter, CountingCollator

PROCESSES = 3


@pytest.fixture(scope="module")
def mixture(tokenizer) -> TaskMixture:
    """Two datasets with different tasks; some rows lack labels, and those of one dataset have weights."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    some = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13}
    first = build_split(tokenizer, 1, lengths, some)
    second = build_split(tokenizer, 2, lengths[:20], {"score": lambda n: n % 2 == 0, "pos": lambda n: n % 2 == 1})
    weights = np.linspace(0.5, 2.0, len(second.windows)).astype(np.float32)
    vars(second)["windows"] = second.windows.add_column("weight", weights)
    return TaskMixture({"first": first, "second": second})


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("tokens", [None, 60])
def test_each_process_counts_what_all_processes_count_together(mixture, tokenizer, tokens, multiple):
    labels = TASKS["pos"].labels
    pos = TokenClassification("pos", labels, class_weights={name: 0.5 + number for number, name in enumerate(labels)})
    counter = Counter(adapted_model())
    counter.tasks["pos"] = pos
    collator = MultitaskDataCollator(tokenizer, {**TASKS, "pos": pos}, multiple)
    counting = CountingCollator(collator, pickle.loads(pickle.dumps(counter)), 2, PROCESSES)
    alone = CountingCollator(lambda rows: collator(rows), counter, 2, 1)
    samplers = [
        MixtureBatchSampler(mixture, 5, max_tokens=tokens, process_index=process, num_processes=PROCESSES)
        for process in range(PROCESSES)
    ]
    number = 0
    for shares in zip(*samplers, strict=True):
        own = [alone(mixture.__getitems__(list(share))).work.numbers() for share in shares]
        for share in shares:
            batch = counting(mixture.__getitems__(pickle.loads(pickle.dumps(share))))
            assert batch.is_complete
            assert batch.work.numbers() == pytest.approx([sum(each) for each in zip(*own, strict=True)], rel=1e-6)
            assert sum(batch.work.drawn) == batch.work.counts.rows == sum(map(len, shares))
            number += 1
    assert number >= 9


def test_an_own_collator_or_rows_alone_are_counted_in_one_process(mixture, tokenizer):
    collator = MultitaskDataCollator(tokenizer, TASKS)
    counter = Counter(build_model())
    (share, *_) = MixtureBatchSampler(mixture, 5, num_processes=2)
    rows = mixture.__getitems__(share)
    for batch in (
        CountingCollator(lambda features: collator(features), counter, 2, 2)(rows),
        CountingCollator(collator, counter, 2, 2)([*rows]),
    ):
        assert not batch.is_complete
        assert batch.work.counts.rows == len(share) == 5
    with pytest.raises(DataError, match=r"^`data_collator` should return "):
        CountingCollator(lambda features: [], counter, 2, 1)(rows)


def test_a_batch_keeps_its_counts_when_it_is_copied_or_sent():
    work = Counter(build_model()).count(
        {
            "input_ids": torch.ones(1, 3),
            "attention_mask": torch.tensor([[1, 1, 0]]),
            "rows": {name: torch.tensor([0] if name == "topic" else [], dtype=torch.int64) for name in TASKS},
            "labels": {name: torch.tensor([1]) for name in TASKS},
        },
        [1, 0],
    )
    assert (work.sub_words, work.positions, work.passes, work.drawn) == (2, 3, 1, (1, 0))
    assert (work.counts.rows, work.counts.task_rows["topic"], work.counts.units["topic"]) == (1, 1, 1)
    assert work.with_numbers(work.numbers()) == work
    batch = CountedBatch({"input_ids": torch.ones(1)}, work, is_complete=True)
    for other in (copy.copy(batch), pickle.loads(pickle.dumps(batch))):
        assert isinstance(other, CountedBatch)
        assert other.is_complete
        assert other.work == work
        assert [*other] == ["input_ids"]
