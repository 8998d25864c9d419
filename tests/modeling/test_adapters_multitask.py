"""Adapters on one encoder: batches of several tasks, gradients, checkpointing, saving and invalid options."""

from __future__ import annotations

import copy
import re
import threading

import pytest
import torch
from adapted_models import ROWS, TASKS, adapted, alone, batch, labels, lora
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from toys import FAMILIES, build_model

from mtl_nlp import MultitaskConfig, MultitaskModel
from mtl_nlp.modeling.adapters_multitask import SHARED, adapter_parameters, peft_adapter_name


def grads(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batch_equals_separate_batches_per_task(family):
    model = adapted(family)
    logits = model(**batch(), rows=ROWS).logits
    for task in model.tasks:
        torch.testing.assert_close(logits[task], alone(model, task), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_all_rows_of_all_tasks_equal_separate_models(family):
    model = adapted(family)
    logits = model(**batch()).logits
    for task in model.tasks:
        torch.testing.assert_close(
            logits[task], model.merge_and_unload(task)(**batch()).logits[task], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["query"]}])
def test_gradients_of_a_mixed_batch_equal_the_sum_of_separate_passes(options):
    adapters = ("pos", "ner") if "use_dora" in options else ("pos", "ner", "shared")
    model = adapted(adapters=adapters, **options)
    output = model(**batch(), rows=ROWS, labels=labels())
    sum(output.loss_sums.values()).backward()
    mixed = grads(model)
    model.zero_grad()
    for task, rows in ROWS.items():
        inputs = {key: value[rows] for key, value in batch().items()}
        own = {task: torch.arange(len(rows))}
        model(**inputs, rows=own, labels={task: labels()[task]}, tasks=[task]).loss_sums[task].backward()
    for name, gradient in grads(model).items():
        torch.testing.assert_close(mixed[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_row_is_read_once_per_adapter_of_its_labelled_tasks():
    model = adapted(adapters=("pos", "ner"))
    read = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"]), with_kwargs=True
    )
    model(**batch(), rows=ROWS)
    input_ids = batch()["input_ids"]
    # Three rows for pos, two rows for ner, and rows 1, 3 and 5 for topic and a.b, which have no adapters.
    assert len(read) == 1
    assert torch.equal(read[0], input_ids[[0, 1, 4, 1, 2, 1, 3, 5]])


def test_all_rows_for_all_tasks_take_one_pass_per_adapter_and_one_without():
    model = adapted(adapters=("pos", "ner"))
    read = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"]), with_kwargs=True
    )
    model(**batch())
    assert [len(each) for each in read] == [6, 6, 6]
    read.clear()
    model(**batch(), tasks=["topic", "a.b"])
    assert len(read) == 1


def test_new_adapters_change_neither_outputs_nor_trainable_parameters():
    model = build_model(TASKS)
    plain = model(**batch()).logits
    model.freeze("topic")
    trainable = {name.replace(".base_layer", "") for name, p in model.named_parameters() if p.requires_grad}
    for name in ("pos", "shared"):
        model.add_adapter(lora(), name)
    after = model(**batch()).logits
    assert all(torch.equal(after[task], plain[task]) for task in plain)
    now = {name.replace(".base_layer", "") for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in now if "lora_" not in name} == trainable
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_reloaded_model_has_every_adapter_and_equal_logits(tmp_path, options):
    model = adapted(adapters=("pos", "a.b"), **options)
    model.save_pretrained(tmp_path)
    loaded, info = MultitaskModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == loaded.state_dict().keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in loaded.state_dict().items())
    assert loaded.config.adapters == model.config.adapters
    before, after = model(**batch()).logits, loaded(**batch()).logits
    assert all(torch.allclose(before[task], after[task], atol=1e-7) for task in before)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_recomputed_through_the_same_adapters(reentrant):
    model = adapted().train()
    first, second = ROWS, {name: rows.flip(0) // 2 for name, rows in ROWS.items()}

    def both() -> dict[str, torch.Tensor]:
        model.zero_grad()
        losses = [sum(model(**batch(), rows=rows, labels=labels()).loss_sums.values()) for rows in (first, second)]
        sum(losses).backward()
        return grads(model)

    plain = both()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    for name, gradient in both().items():
        torch.testing.assert_close(plain[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_threads_can_share_a_model_with_adapters():
    model = adapted()
    expected = {task: model(**batch(), tasks=[task]).logits[task] for task in model.tasks}
    wrong = []

    def ask(task: str) -> None:
        for _ in range(20):
            if not torch.equal(model(**batch(), tasks=[task]).logits[task], expected[task]):
                wrong.append(task)

    threads = [threading.Thread(target=ask, args=(task,)) for task in model.tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_idle_adapters_get_a_gradient_of_zero():
    model = adapted(adapters=("pos", "ner", "topic", "shared"))
    rows = {**ROWS, "ner": torch.tensor([], dtype=torch.long), "pos": torch.tensor([], dtype=torch.long)}
    wanted = {**labels(), "ner": torch.ones(0, 9, dtype=torch.long), "pos": torch.ones(0, 9, dtype=torch.long)}
    model(**batch(), rows=rows, labels=wanted).loss.backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(model.encoder))
    idle = adapter_parameters(model.encoder, ["task_pos", "task_ner"])
    assert len(idle) == 48 and all(not parameter.grad.any() for parameter in idle)


def test_configuration_with_invalid_adapters_is_refused():
    config = build_model(TASKS).config
    options = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    options |= {"use_rslora": False, "use_dora": False}
    for adapters in ([{"name": "no", **options}], [{"name": "pos", **options}] * 2):
        with pytest.raises(ValueError, match="Each adapter should have a different name"):
            MultitaskConfig(text_config=config.text_config, tasks=TASKS, adapters=adapters)
    wrong = [{"r": "4"}, {"target_modules": 5}, {"target_modules": "(a+)+"}, {"lora_dropout": "x"}, {"eva_config": {}}]
    for changes in (*wrong, {"name": ["pos"]}, {"r": 0}, {"lora_dropout": 1.0}, {"target_modules": [1]}):
        with pytest.raises(ValueError, match="An adapter should have `name`, `r`"):
            MultitaskConfig(
                text_config=config.text_config, tasks=TASKS, adapters=[{"name": "pos", **options} | changes]
            )
    for adapters in ([{"r": 4}], ["pos"], [None]):
        with pytest.raises(ValueError, match="An adapter should have `name`, `r`"):
            MultitaskConfig(text_config=config.text_config, tasks=TASKS, adapters=adapters)


def test_encoder_called_alone_ignores_adapters_without_gradients():
    model = adapted(adapters=("shared", "pos", "ner")).eval()
    plain = copy.deepcopy(model)
    plain.delete_adapter(plain.adapter_names)
    expected = plain.encoder(**batch()).last_hidden_state
    assert torch.equal(model.encoder(**batch()).last_hidden_state, expected)
    with torch.no_grad():
        assert torch.equal(model.train().encoder(**batch()).last_hidden_state, expected)


def test_activation_checkpointing_that_loses_the_route_is_an_error():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    model = adapted(adapters=("pos", "ner")).train()
    apply_activation_checkpointing(model, check_fn=lambda module: type(module).__name__ == "BertLayer")
    output = model(**batch(), rows={**ROWS, "ner": ROWS["ner"][:0]}, labels={**labels(), "ner": labels()["ner"][:0]})
    with pytest.raises(RuntimeError, match=r"should be called only through MultitaskModel\.forward"):
        output.loss.backward()


def test_empty_task_list_gives_no_answers():
    assert adapted()(**batch(), tasks=[]).logits == {}
    assert build_model(TASKS)(**batch(), tasks=[]).logits == {}


def test_adapters_that_cannot_be_combined_are_refused():
    model = adapted(adapters=("pos",), use_dora=True)
    with pytest.raises(ValueError, match="DoRA adapters cannot be added up"):
        model.add_adapter(lora())
    model = adapted(adapters=("pos",), lora_dropout=0.5)
    with pytest.raises(ValueError, match=r"share one dropout mask.* Found 0\.1, 0\.5"):
        model.add_adapter(lora(lora_dropout=0.1))
    assert model.adapter_names == ["pos"]


# Names of adapters in PEFT layers


SIMILAR_NAMES = st.text(st.sampled_from("a2e_.%-AE")) | st.sampled_from(
    ["shared", "task_a", "escaped_task_a", "a_2e_b", "a.b", "a%2Eb", "a_2E_b", "_2e_", ".", "_", "é", "e\u0301"]
)


@pytest.mark.parametrize("name", ["ner", "ner_wnut", "NER2", "_", "type", "lora_A"])
def test_plain_names_of_tasks_stay_readable(name):
    assert peft_adapter_name(name) == f"task_{name}"


def test_shared_adapter_keeps_its_name():
    assert peft_adapter_name(SHARED) == "shared"


@given(st.text(), st.text())
def test_names_in_peft_layers_have_ascii_letters_digits_and_underscores(one, other):
    assert re.fullmatch(r"[A-Za-z0-9_]+", peft_adapter_name(one))
    assert (peft_adapter_name(one) == peft_adapter_name(other)) == (one == other)


@given(SIMILAR_NAMES, SIMILAR_NAMES)
def test_similar_tasks_have_different_names_in_peft_layers(one, other):
    assert (peft_adapter_name(one) == peft_adapter_name(other)) == (one == other)
