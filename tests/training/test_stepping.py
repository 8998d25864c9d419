from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_splits import TASKS, build_split
from transformers import AutoModelForTokenClassification, Trainer, TrainingArguments
from watched_training import Recorder

from mtl_nlp import (
    EncodedDataset,
    MultitaskModel,
)


@pytest.fixture(scope="module")
def unequal(tokenizer) -> EncodedDataset:
    """32 texts; only the six longest have a topic, so short micro-batches have none."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13, "score": lambda n: n % 2 == 0}
    return build_split(tokenizer, 1, lengths, has)


def logged(trainer: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize("loss_scale", ["rows", "per_task"])
def test_accumulated_micro_batches_give_the_gradients_of_the_complete_batch(trainer_of, unequal, loss_scale):
    found = []
    for size, accumulation in ((32, 1), (16, 2), (8, 4)):
        recorder, sizes = Recorder(), {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        weights = {"pos": 0.3, "score": 2.0}
        settings = {"max_steps": 1, "loss_scale": loss_scale, "loss_weights": weights, "logging_steps": 1, **sizes}
        trainer = trainer_of({"d": unequal}, callbacks=[recorder], **settings)
        batches = list(trainer.get_train_dataloader())
        assert len(batches) == accumulation
        assert accumulation == 1 or any(len(batch["rows"]["topic"]) == 0 for batch in batches)
        trainer.train()
        gradients = torch.cat([gradient.flatten() for gradient in recorder.gradients[0].values()])
        found.append((gradients, logged(trainer, "loss")[0]))
    (whole, loss), *rest = found
    for gradients, other_loss in rest:
        assert (gradients - whole).norm() <= 1e-6 * whole.norm()
        assert other_loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_one_task_trains_like_the_stock_trainer_and_class(trainer_of, tokenizer, encoder_folder, tmp_path, optim):
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    unequal = build_split(tokenizer, 1, lengths, {"pos": lambda n: True})
    task = TASKS["pos"]
    torch.manual_seed(0)
    stock = AutoModelForTokenClassification.from_pretrained(encoder_folder("bert"), num_labels=task.num_labels)
    model = MultitaskModel.from_encoder(encoder_folder("bert"), [task])
    model.heads[0].stock.classifier.load_state_dict(stock.classifier.state_dict())
    settings = {
        "optim": optim, "learning_rate": 0.01, "weight_decay": 0.1, "num_train_epochs": 1, "logging_steps": 1,
        "max_grad_norm": 1.0,
    }  # fmt: skip
    ours = trainer_of({"d": unequal}, model=model, per_device_train_batch_size=6, **settings)
    batches = [
        {
            **{key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")},
            "labels": batch["labels"]["pos"],
        }
        for batch in ours.get_train_dataloader()
    ]
    theirs = Trainer(
        stock,
        TrainingArguments(
            str(tmp_path / "stock"), use_cpu=True, disable_tqdm=True, save_strategy="no", remove_unused_columns=False,
            per_device_train_batch_size=1, train_sampling_strategy="sequential", **settings,
        ),
        train_dataset=batches,
        data_collator=lambda batch: batch[0],
    )  # fmt: skip
    ours.train()
    theirs.train()
    assert len(logged(ours, "loss")) == len(batches) > 3
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), rel=1e-5)
    assert logged(ours, "grad_norm") == pytest.approx(logged(theirs, "grad_norm"), rel=1e-4)
    torch.testing.assert_close(model.encoder.state_dict(), stock.bert.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weights", [None, {"topic": 1.0, "pos": 0.5, "score": 3.0, "ner": 0.0}])
@pytest.mark.parametrize("scale", ["rows", "per_task"])
def test_loss_is_the_weighted_sum_of_the_mean_losses_of_tasks(trainer_of, unequal, scale, weights):
    trainer = trainer_of({"d": unequal}, loss_weights=weights, loss_scale=scale, per_device_train_batch_size=12)
    (batch, *_) = trainer.get_train_dataloader()
    loss, output = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    means = {
        task: F.cross_entropy(output.logits[task].flatten(0, -2), batch["labels"][task].flatten())
        for task in ("pos", "ner", "topic")
        if len(batch["rows"][task])
    }
    means["score"] = F.mse_loss(output.logits["score"][:, 0], batch["labels"]["score"])
    share = {task: len(batch["rows"][task]) / 12 if scale == "rows" else 1.0 for task in means}
    given = {"ner": 3.0, "topic": 0.6, "score": 0.6, **(weights or {})}  # the defaults of these tasks side by side
    expected = sum(given.get(task, 1.0) * share[task] * means[task] for task in means)
    torch.testing.assert_close(loss, expected)


def test_logged_task_loss_is_the_mean_over_labelled_units_since_the_last_log(trainer_of, disjoint):
    batches = [[0, 1, 2], [3, 16], [4, 5, 6, 7], [8, 9]]
    settings = {"optim": "sgd", "learning_rate": 0.0, "num_train_epochs": 1, "logging_steps": 2}
    trainer = trainer_of(disjoint, batches=batches, **settings)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry, positions in zip(logs, ([0, 1, 2, 3, 16], [4, 5, 6, 7, 8, 9]), strict=True):
        batch = trainer.data_collator(trainer.train_dataset.__getitems__(positions))
        logits, labels = trainer.model(**batch).logits["pos"], batch["labels"]["pos"]
        assert entry["loss_pos"] == pytest.approx(F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item())
    assert {"loss_topic", "loss_score"} <= set(logs[0])
    assert not {"loss_topic", "loss_score"} & set(logs[1])
