"""Adapters: PEFT's layers on one encoder, and rows of several tasks in one pass."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn
from toys import FAMILIES, build_model, lively_model, liven_adapters

from mtl_nlp import MultitaskConfig, MultitaskModel, TextClassification, TokenClassification
from mtl_nlp.modeling.adapters_multitask import adapter_parameters, peft_adapter_name

POS = TokenClassification(name="pos", labels=["A", "B", "C"])
NER = TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2")
TOPIC = TextClassification(name="topic", labels=["x", "y"])
STARS = TextClassification(name="a.b", labels=["1", "2", "3", "4"])
TASKS = [POS, NER, TOPIC, STARS]
ROWS = {
    "pos": torch.tensor([0, 1, 4]),
    "ner": torch.tensor([1, 2]),
    "topic": torch.tensor([3, 1]),
    "a.b": torch.tensor([1, 5]),
}


def lora(**options: object) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})


def adapted(family="bert", adapters=("pos", "ner", "shared"), build=lively_model, **options) -> MultitaskModel:
    """A model whose adapters change what they are for."""
    model = build(TASKS, family)
    for name in adapters:
        model.add_adapter(lora(**options), name)
    return liven_adapters(model)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 300, (6, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = attention_mask[4, 3:] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def labels() -> dict[str, torch.Tensor]:
    return {
        name: torch.ones(len(ROWS[name]), *((9,) if name in {"pos", "ner"} else ()), dtype=torch.long) for name in ROWS
    }


def grads(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def alone(model: MultitaskModel, task: str) -> torch.Tensor:
    """The task's logits for its rows, read by a plain encoder with its adapters merged."""
    inputs = {key: value[ROWS[task]] for key, value in batch().items()}
    return model.merge_and_unload(task)(**inputs).logits[task]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_equals_every_tasks_rows_alone(family):
    model = adapted(family)
    logits = model(**batch(), rows=ROWS).logits
    for task in model.tasks:
        torch.testing.assert_close(logits[task], alone(model, task), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_all_rows_of_all_tasks_equal_every_tasks_own_model(family):
    model = adapted(family)
    logits = model(**batch()).logits
    for task in model.tasks:
        torch.testing.assert_close(
            logits[task], model.merge_and_unload(task)(**batch()).logits[task], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["query"]}])
def test_gradients_of_a_mixed_batch_equal_the_sum_of_every_tasks_pass(options):
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


def test_a_row_is_read_once_for_each_adapter_it_is_labelled_for_and_only_then():
    model = adapted(adapters=("pos", "ner"))
    read = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"]), with_kwargs=True
    )
    model(**batch(), rows=ROWS)
    input_ids = batch()["input_ids"]
    # pos: 3 rows, ner: 2, and topic and a.b, which share the plain encoder, rows 1, 3 and 5.
    assert len(read) == 1
    assert torch.equal(read[0], input_ids[[0, 1, 4, 1, 2, 1, 3, 5]])


def test_asked_for_all_rows_there_is_one_pass_a_task_with_an_adapter_and_one_for_the_rest():
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


def test_adapters_start_as_no_change_and_leave_what_was_trainable():
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
def test_a_reloaded_model_has_every_adapter_and_equal_logits(tmp_path, options):
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


def test_adapters_of_other_ranks_and_layers_go_together():
    model = adapted(adapters=("pos",))
    model.add_adapter(LoraConfig(r=2, target_modules=["value", "key"]), "ner")
    model.add_adapter(LoraConfig(r=6, target_modules=["query"]), "topic")
    for parameter in adapter_parameters(model.encoder, map(peft_adapter_name, model.adapter_names)):
        nn.init.normal_(parameter, std=0.2)
    logits = model(**batch(), rows=ROWS).logits
    for task in model.tasks:
        torch.testing.assert_close(logits[task], alone(model, task), atol=1e-5, rtol=1e-4)


def test_dropout_drops_for_each_row_what_its_own_adapter_drops():
    model = adapted(adapters=("pos",))
    model.add_adapter(lora(lora_dropout=0.999999), "ner")
    for parameter in adapter_parameters(model.encoder, ["task_ner"]):
        nn.init.normal_(parameter, std=0.2)
    rows = {"pos": torch.arange(3), "ner": torch.arange(3, 6)}
    model.train()
    logits = model(**batch(), rows=rows, tasks=["pos", "ner"]).logits
    model.eval()
    torch.testing.assert_close(logits["pos"], model(**batch(), tasks=["pos"]).logits["pos"][:3], atol=1e-5, rtol=1e-4)
    without = copy.deepcopy(model)
    without.delete_adapter("ner")
    torch.testing.assert_close(logits["ner"], without(**batch(), tasks=["ner"]).logits["ner"][3:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_computed_again_through_the_same_adapters(reentrant):
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


def test_threads_share_a_model_with_adapters():
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


def test_every_adapter_is_touched_by_every_batch():
    model = adapted(adapters=("pos", "ner", "topic", "shared"))
    rows = {**ROWS, "ner": torch.tensor([], dtype=torch.long), "pos": torch.tensor([], dtype=torch.long)}
    wanted = {**labels(), "ner": torch.ones(0, 9, dtype=torch.long), "pos": torch.ones(0, 9, dtype=torch.long)}
    model(**batch(), rows=rows, labels=wanted).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    idle = adapter_parameters(model.encoder, ["task_pos", "task_ner"])
    assert len(idle) == 48 and all(not parameter.grad.any() for parameter in idle)


def test_bad_adapters_are_refused_with_what_would_do():
    model = build_model(TASKS, "modernbert")
    for options, name, message in [
        ({"target_modules": ["quary"]}, "pos", "quary is no linear layer of the encoder. It has Wqkv, Wo, Wi"),
        ({"target_modules": None}, "pos", "no default `target_modules` for a modernbert encoder"),
        ({"r": 33}, "pos", "`r` should be between 1 and 32"),
        ({}, "poss", "No task 'poss' to adapt to. The model has pos, ner"),
        ({"bias": "all"}, "pos", "have the options r, lora_alpha, .* Found 'bias'"),
    ]:
        before = model.state_dict().keys()
        with pytest.raises(ValueError, match=message):
            model.add_adapter(lora(**options), name)
        assert model.config.adapters is None and model.state_dict().keys() == before
    model.add_adapter(lora(), "pos")
    with pytest.raises(ValueError, match="has an adapter"):
        model.add_adapter(lora(), "pos")


def test_a_configuration_with_other_adapters_is_refused():
    config = build_model(TASKS).config
    options = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    options |= {"use_rslora": False, "use_dora": False}
    for adapters in ([{"name": "no", **options}], [{"name": "pos", **options}] * 2):
        with pytest.raises(ValueError, match="should have the names of tasks"):
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


def test_in_training_the_layers_refuse_rows_whose_adapters_nobody_told_them():
    model = adapted().train()
    with pytest.raises(RuntimeError, match=r"through MultitaskModel\.forward alone"):
        model.encoder(**batch())
    model.eval().encoder(**batch())


def test_activation_checkpointing_that_forgets_the_way_is_an_error_and_no_other_gradient():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    model = adapted(adapters=("pos", "ner")).train()
    apply_activation_checkpointing(model, check_fn=lambda module: type(module).__name__ == "BertLayer")
    output = model(**batch(), rows={**ROWS, "ner": ROWS["ner"][:0]}, labels={**labels(), "ner": labels()["ner"][:0]})
    with pytest.raises(RuntimeError, match=r"through MultitaskModel\.forward alone"):
        output.loss.backward()


def test_no_task_asked_for_is_no_answer():
    assert adapted()(**batch(), tasks=[]).logits == {}
    assert build_model(TASKS)(**batch(), tasks=[]).logits == {}


def test_adapters_that_do_not_add_up_are_refused():
    model = adapted(adapters=("pos",), use_dora=True)
    with pytest.raises(ValueError, match="DoRA adapters do not add up"):
        model.add_adapter(lora())
    model = adapted(adapters=("pos",), lora_dropout=0.5)
    with pytest.raises(ValueError, match="drop out together"):
        model.add_adapter(lora(lora_dropout=0.1))
    assert model.adapter_names == ["pos"]
