from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_gradient_methods import PlainSum
from toy_splits import TASKS, build_split
from trainers import adapted_model, build_model
from watched_training import Recorder

from mtl_nlp import EncodedDataset

TRAINED = {"max_steps": 3, "per_device_train_batch_size": 16, "logging_steps": 1, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def unequal(tokenizer) -> EncodedDataset:
    """32 texts with labels for one to four of the tasks."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    has = {
        "pos": lambda n: n != 5,
        "ner": lambda n: n % 3 > 0,
        "topic": lambda n: n > 13,
        "score": lambda n: n % 2 == 0,
    }
    return build_split(tokenizer, 1, lengths, has)


def vector(tensors: dict[str, torch.Tensor], like: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return all tensors in one vector, with zeros for None, the gradient of an idle or frozen parameter."""
    parts = (torch.zeros_like(like[name]) if tensors[name] is None else tensors[name] for name in sorted(tensors))
    return torch.cat([part.flatten() for part in parts]).double()


def run_of(trainer_of, data, method=None, **arguments):
    """Return the recorder and the log of a training."""
    recorder = Recorder()
    trainer = trainer_of(data, callbacks=[recorder], gradient_method=method, **{**TRAINED, **arguments})
    trainer.train()
    return recorder, [entry for entry in trainer.state.log_history if "loss" in entry]


MODELS = {
    "plain": build_model,
    "adapters": adapted_model,
    "deberta": lambda: adapted_model(family="deberta-v2"),
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", ["shared", "disjoint"])
def test_sum_of_the_tasks_gradients_trains_like_the_plain_sum(trainer_of, unequal, disjoint, data, model, accumulation):
    splits = {"d": unequal} if data == "shared" else disjoint
    size = {"per_device_train_batch_size": 16 // accumulation, "gradient_accumulation_steps": accumulation}
    expected, logs = run_of(trainer_of, splits, model=MODELS[model](), **size)
    found, own_logs = run_of(trainer_of, splits, PlainSum(TASKS), model=MODELS[model](), **size)
    assert found.gradients[0].keys() == expected.gradients[0].keys()
    gradients, others = (vector(each.gradients[0], each.start) for each in (found, expected))
    assert (gradients - others).norm() <= 1e-6 * others.norm()
    weights, others, start = (
        vector(each, expected.start) for each in (found.weights[-1], expected.weights[-1], expected.start)
    )
    assert (weights - others).norm() <= 3e-4 * (others - start).norm()
    for entry, other in zip(own_logs, logs, strict=True):
        assert entry.keys() == other.keys()
        for key in (key for key in other if key.startswith("loss") or key in {"grad_norm", "padding"}):
            assert entry[key] == pytest.approx(other[key], rel=1e-5)
