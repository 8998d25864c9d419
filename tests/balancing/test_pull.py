from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from torch import nn
from toys import build_model, liven_adapters

from mtl_nlp import TextClassification, TokenClassification
from mtl_nlp.balancing.pull import AdapterPull, adapter_deviation, check_pull
from mtl_nlp.modeling.adapters_multitask import low_rank_factors

TASKS = [
    TokenClassification(name="pos", labels=["A", "B"]),
    TokenClassification(name="ner", labels=["O", "B-X"], scheme="iob2"),
    TextClassification(name="topic", labels=["x", "y"]),
]

ADAPTERS = {"r": 4, "target_modules": "all-linear"}


def adapted(*names: str, **options: object) -> nn.Module:
    model = build_model(TASKS)
    for name in names:
        model.add_adapter(LoraConfig(**{**ADAPTERS, **options}), name)
    return liven_adapters(model, std=0.3)


def naive_spread(model: nn.Module) -> torch.Tensor:
    """Return Σ_layers Σ_t ‖ΔW_t − mean ΔW‖²_F computed directly, from every ΔW."""
    names = [name for name in model.adapter_names if name != "shared"]
    total = torch.zeros(())
    for layer in model.encoder.modules():
        if "lora_A" in dict(layer.named_children()):
            changes = [
                layer.get_delta_weight(f"task_{name}")
                if f"task_{name}" in layer.lora_A
                else torch.zeros_like(layer.base_layer.weight)
                for name in names
            ]
            mean = sum(changes) / len(changes)
            total = total + sum(((change - mean) ** 2).sum() for change in changes)
    return total


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "lora_alpha": 3}])
@pytest.mark.parametrize("names", [("pos", "ner", "topic"), ("pos", "ner", "shared")])
def test_pull_and_its_gradient_equal_the_formula(names, options):
    model = adapted(*names, **options)
    model.zero_grad()
    naive_spread(model).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    spread = adapter_deviation(model)
    torch.testing.assert_close(spread, naive_spread(model), rtol=1e-5, atol=1e-5)
    spread.backward()
    assert expected.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-5)


def test_missing_adapter_of_a_layer_counts_as_no_change():
    model = adapted("pos", "ner")
    model.add_adapter(LoraConfig(r=2, target_modules=["query"]), "topic")
    torch.testing.assert_close(adapter_deviation(model), naive_spread(model), rtol=1e-5, atol=1e-5)


def test_adapters_with_equal_products_have_zero_deviation():
    model = adapted("pos", "ner")
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    for (down, up), (down_too, up_too) in low_rank_factors(model.encoder, ["task_pos", "task_ner"]).values():
        down_too.data = rotation @ down
        up_too.data = up @ rotation.T
    for layer in model.encoder.modules():
        if "lora_A" in dict(layer.named_children()):
            layer.lora_B["task_ner"].weight.data = layer.lora_B["task_pos"].weight @ rotation.T
    assert abs(adapter_deviation(model)) < 1e-3 < adapter_deviation(adapted("pos", "ner"))


def test_pull_is_computed_in_full_precision_for_any_model_dtype():
    model = adapted("pos", "ner")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter_deviation(model), adapter_deviation(model))
        assert adapter_deviation(model).dtype == torch.float32
        half = adapter_deviation(model)
    assert torch.equal(half, adapter_deviation(model))


def test_dora_adapters_are_not_pulled():
    model = adapted("pos", "ner", use_dora=True)
    with pytest.raises(ValueError, match="a DoRA adapter is not a product"):
        check_pull(model)


def test_penalty_is_the_strength_times_the_current_deviation():
    model = adapted("pos", "ner")
    pull = AdapterPull(model, 0.5)
    torch.testing.assert_close(pull.penalty(), 0.5 * adapter_deviation(model))
    liven_adapters(model, std=0.1)
    torch.testing.assert_close(pull.penalty(), 0.5 * adapter_deviation(model))


@pytest.mark.parametrize("names", [(), ("pos",), ("pos", "shared")])
def test_fewer_than_two_adapters_are_not_pulled(names):
    with pytest.raises(ValueError, match="needs two"):
        AdapterPull(adapted(*names), 0.5)
