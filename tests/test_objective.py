"""The objective does not depend on how batches are built."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from toys import build_model

from mtl_nlp import (
    EncodedDataset,
    MultitaskDataCollator,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    Regression,
    TaskMixture,
    TextClassification,
    TokenClassification,
    encode,
    joint_loss,
)
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.loss_multitask import count_step

TASKS = [
    TokenClassification(name="pos", labels=["A", "B"]),
    TextClassification(name="topic", labels=["news", "sport"]),
    Regression(name="score"),
]
WEIGHTS = {"topic": 0.5}


@pytest.fixture(scope="module")
def datasets(tokenizers) -> dict[str, EncodedDataset]:
    """Encode four rows with labels per word and two rows with two labels per text, all of equal length."""
    words = Dataset.from_dict({"tokens": [["fox", "dog"], ["dog", "the"]] * 2, "pos": [["A", "B"], ["B", "B"]] * 2})
    texts = Dataset.from_dict({"text": ["fox the", "dog fox"], "topic": ["news", "sport"], "score": [0.5, -1.0]})
    tokenizer = tokenizers["wordpiece"]
    return {
        "words": encode(words, inputs={"tokens": "tokens"}, labels={"pos": "pos"}, tasks=TASKS, tokenizer=tokenizer),
        "texts": encode(
            texts,
            inputs={"text": "text"},
            labels={"topic": "topic", "score": "score"},
            tasks=TASKS,
            tokenizer=tokenizer,
        ),
    }


def mean_gradient(mixture: TaskMixture, collator: MultitaskDataCollator, epochs: int) -> torch.Tensor:
    """Return the mean gradient over all steps of several epochs at constant weights."""
    model = build_model(TASKS)
    sampler = MixtureBatchSampler(mixture, 2)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for rows in sampler:
            batch = collator(mixture.__getitems__(rows))
            counts = count_step([batch], {task.name: task for task in TASKS})
            joint_loss(model(**batch).loss_sums, counts, WEIGHTS).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(gradients) / (epochs * len(sampler))


@pytest.mark.parametrize("probabilities", [None, {"words": 0.5, "texts": 0.5}])
def test_mixed_and_homogeneous_batches_have_the_same_expected_gradient(datasets, tokenizers, probabilities):
    collator = MultitaskDataCollator(tokenizers["wordpiece"], {task.name: task for task in TASKS})
    mixtures = [
        TaskMixture(datasets, probabilities=probabilities, batching=batching) for batching in ("mixed", "homogeneous")
    ]
    # After four epochs of six rows, all rows of a dataset were drawn equally often, so the means are exact.
    mixed, homogeneous = (mean_gradient(mixture, collator, 4) for mixture in mixtures)
    assert (mixed - homogeneous).norm() < 1e-6 * mixed.norm()


def test_model_trains_a_hundred_tasks_on_a_hundred_datasets(tokenizers, tmp_path):
    kinds = [
        lambda name: TokenClassification(name=name, labels=["A", "B"]),
        lambda name: TextClassification(name=name, labels=["a", "b", "c"]),
        lambda name: Regression(name=name),
    ]
    tasks = [kinds[number % 3](f"task{number}") for number in range(100)]
    values = [[["A", "B"], ["B", "A"], ["A", "A"]], ["a", "b", "c"], [0.1, 0.2, 0.3]]
    tokenizer = tokenizers["wordpiece"]
    datasets = {
        f"data{number}": encode(
            Dataset.from_dict({"tokens": [["fox", "dog"]] * 3, "label": values[number % 3]}),
            inputs={"tokens": "tokens"},
            labels={task.name: "label"},
            tasks=tasks,
            tokenizer=tokenizer,
        )
        for number, task in enumerate(tasks)
    }
    model = build_model(tasks)
    before = copy.deepcopy(model.heads)
    args = MultitaskTrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=16, save_strategy="no", disable_tqdm=True
    )
    trainer = MultitaskTrainer(model, args, None, TaskMixture(datasets), datasets, tokenizer)
    trainer.train()
    for task, old, new in zip(tasks, before, model.heads, strict=True):
        pairs = zip(old.parameters(), new.parameters(), strict=True)
        assert any(not torch.equal(*pair) for pair in pairs), f"{task.name} was not trained"
    metrics = trainer.evaluate()
    assert sum(key.endswith("_loss") for key in metrics) == len(tasks) + 1  # and the joint loss
    trainer.save_model(str(tmp_path / "model"))
    again = MultitaskModel.from_pretrained(tmp_path / "model")
    assert list(again.tasks) == [task.name for task in tasks]
