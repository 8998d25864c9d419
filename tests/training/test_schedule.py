from __future__ import annotations

import pytest
from toy_splits import build_split

from mtl_nlp import MultitaskTrainingArguments, TaskMixture
from mtl_nlp.training.schedule import batch_sampler, data_loader


@pytest.fixture
def mixture(tokenizers):
    return TaskMixture({"d": build_split(tokenizers["wordpiece"], 0, [4] * 20, {"topic": lambda n: True})})


@pytest.mark.parametrize(
    ("training", "batches"),
    [
        ({"num_train_epochs": 3}, 3 * 5),
        ({"num_train_epochs": 3, "gradient_accumulation_steps": 2}, 3 * 3 * 2),
        ({"max_steps": 7, "gradient_accumulation_steps": 2}, 7 * 2),
    ],
)
def test_temperature_changes_over_all_batches_of_the_training(mixture, tmp_path, training, batches):
    arguments = MultitaskTrainingArguments(str(tmp_path), per_device_train_batch_size=4, **training)
    assert batch_sampler(mixture, arguments).total_batches == batches


@pytest.mark.parametrize(("data_seed", "seed"), [(None, 5), (3, 3)])
def test_data_seed_defaults_to_the_seed_of_the_run(mixture, tmp_path, data_seed, seed):
    arguments = MultitaskTrainingArguments(str(tmp_path), seed=5, data_seed=data_seed)
    assert batch_sampler(mixture, arguments).seed == seed


@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork")])
def test_loader_starts_its_workers_in_the_given_way(tmp_path, workers, context):
    given = {"dataloader_num_workers": workers, "dataloader_multiprocessing_context": "fork"}
    args = MultitaskTrainingArguments(str(tmp_path), **given)
    loader = data_loader([1, 2], [[0], [1]], list, args)
    found = loader.multiprocessing_context
    assert (None if found is None else found.get_start_method()) == context
