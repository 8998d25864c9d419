"""The record of a training's work: what was drawn, encoder passes and time, also over a resume."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from toy_splits import build_split
from trainers import adapted_model, build_model

from mtl_nlp import TaskMixture
from mtl_nlp.errors import CheckpointError
from mtl_nlp.training.progress import Progress


@pytest.fixture(scope="module")
def mixture(tokenizer) -> TaskMixture:
    """Three datasets, of which the first two feed different tasks."""

    def always(length: int) -> bool:
        return True

    words = build_split(tokenizer, 2, [3] * 9, {"pos": always, "ner": always})
    texts = build_split(tokenizer, 3, [4] * 20, {"topic": always})
    both = build_split(tokenizer, 4, [5] * 6, {"ner": always, "topic": always})
    return TaskMixture({"words": words, "texts": texts, "both": both}, temperature=2.0)


def drawn_by_the_schedule(mixture: TaskMixture, trainer, steps: int) -> dict[str, int]:
    sampler = trainer.get_train_dataloader().batch_sampler
    batches = []
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        batches += list(sampler)
        if len(batches) >= steps:
            break
    which = np.searchsorted(mixture.offsets, np.concatenate(batches[:steps]), side="right") - 1
    return {name: int((which == number).sum()) for number, name in enumerate(mixture.datasets)}


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_are_counted_as_they_are_drawn(trainer_of, mixture, workers):
    settings = {"max_steps": 7, "per_device_train_batch_size": 8, "dataloader_num_workers": workers}
    trainer = trainer_of(mixture.datasets, **settings)
    trainer.train_dataset = mixture
    trainer.train()
    described = trainer.describe_training()
    drawn = {name: each["drawn"] for name, each in described["mixture"].items()}
    assert drawn == drawn_by_the_schedule(mixture, trainer, 7)
    assert described["rows"] == described["encoder_passes"] == sum(drawn.values())
    assert described["rows_per_second"] == pytest.approx(described["rows"] / described["seconds"])


def test_a_row_takes_a_pass_per_combination_of_adapters_of_its_labels(trainer_of, mixture):
    model = adapted_model(("shared", "pos", "topic"))  # ner and score share the pass without an own adapter
    trainer = trainer_of(mixture.datasets, model=model, max_steps=5, per_device_train_batch_size=8)
    trainer.train_dataset = mixture
    trainer.train()
    found = trainer.describe_training()
    drawn = {name: each["drawn"] for name, each in found["mixture"].items()}
    assert found["encoder_passes"] == 2 * drawn["words"] + drawn["texts"] + 2 * drawn["both"]


def test_a_resumed_training_counts_the_complete_training(trainer_of, mixture, tmp_path):
    settings = {"per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 2}

    def trained(steps: int, folder: str, resume: str | None = None):
        trainer = trainer_of(
            mixture.datasets, model=build_model(), max_steps=steps, output_dir=str(tmp_path / folder), **settings
        )
        trainer.train_dataset = mixture
        trainer.train(resume_from_checkpoint=resume)
        return trainer.describe_training()

    complete, _ = trained(6, "complete"), trained(4, "parts")
    part = str(tmp_path / "parts" / "checkpoint-4")
    resumed = trained(6, "parts", part)
    for key in ("rows", "encoder_passes", "mixture"):
        assert resumed[key] == complete[key]
    (Path(part) / "progress.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"progress\.json cannot be loaded"):
        trained(6, "parts", part)


def test_time_is_summed_over_the_parts_of_a_training(tmp_path):
    progress = Progress()
    assert progress.seconds < 0.01  # nothing was trained yet
    progress.start(["a"], None)
    time.sleep(0.02)
    progress.save(tmp_path)
    time.sleep(0.2)  # after the checkpoint, so it is lost
    again = Progress()
    again.start(["a"], tmp_path)
    time.sleep(0.02)
    again.stop()
    first = again.seconds
    time.sleep(0.02)
    assert 0.04 <= again.seconds == first < 0.2
    again.start(["a"], None)
    assert again.seconds < first


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"seconds": -1.0, "rows": 0, "encoder_passes": 0, "drawn": {}}',
     '{"seconds": 1.0, "rows": 1.5, "encoder_passes": 0, "drawn": {}}',
     '{"seconds": NaN, "rows": 1, "encoder_passes": 0, "drawn": {}}'],
)  # fmt: skip
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "progress.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"progress\.json cannot be loaded"):
        Progress().start([], tmp_path)
