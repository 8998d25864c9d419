from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig
from toy_splits import TASKS
from toys import FAMILIES
from trainers import adapted_model, build_model

from mtl_nlp.modeling.loss_multitask import StepCounts
from mtl_nlp.training.gradient_norms import GradientNorms, last_shared_layer


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_last_layer_in_every_family(family):
    model = build_model(family=family)
    names = {id(parameter): name for name, parameter in model.encoder.named_parameters()}
    found = [names[id(parameter)] for parameter in last_shared_layer(model)]
    # ALBERT has one layer, which it runs twice.
    assert all((".0." if family == "albert" else ".1.") in name for name in found), found
    assert len(found) > 5
    assert not any("embeddings" in name for name in found)


def test_adapters_of_tasks_and_frozen_weights_do_not_count():
    model = adapted_model()
    model.freeze("encoder")
    with pytest.raises(ValueError, match="all of them are frozen"):
        last_shared_layer(model)
    names = {id(parameter): name for name, parameter in adapted_model().encoder.named_parameters()}
    model = adapted_model()
    names = {id(parameter): name for name, parameter in model.encoder.named_parameters()}
    found = [names[id(parameter)] for parameter in last_shared_layer(model)]
    assert any("lora_A.shared" in name for name in found)
    assert not any("task_" in name for name in found)


def test_frozen_encoder_with_a_shared_adapter_has_the_adapter():
    model = build_model()
    model.freeze("encoder")
    model.add_adapter(LoraConfig(r=4, target_modules="all-linear"), "shared")
    names = {id(parameter): name for name, parameter in model.encoder.named_parameters()}
    assert all("lora_" in names[id(parameter)] for parameter in last_shared_layer(model))


def test_norm_is_that_of_the_sum_over_micro_batches():
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    norms = GradientNorms(weights, Accelerator(cpu=True))
    rows = dict.fromkeys(TASKS, 1) | {"topic": 0}
    norms.begin(StepCounts(2, rows, {**rows, "pos": 4}))
    zero = torch.zeros((), requires_grad=True)
    norms.add(
        {"pos": weights[0].sum(), "ner": 3 * weights[0][0] + 4 * weights[1][0, 0], "topic": zero, "score": 1 * zero}
    )
    norms.add({"pos": -2 * weights[0].sum(), "ner": weights[0][0] * 3, "topic": zero, "score": 1 * zero})
    found = {task: norm.item() for task, norm in norms.take().items()}
    assert found == pytest.approx({"pos": 3**0.5 / 4, "ner": (6**2 + 4**2) ** 0.5, "score": 0.0})
    assert norms.take() == {}
