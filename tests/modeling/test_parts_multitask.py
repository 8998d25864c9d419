"""Tasks and adapters that are added, removed, frozen and merged."""

import copy

import pytest
import torch
from four_tasks import MODERNBERT_STD, NAMES, TASKS, a_batch, aligned, assert_freshly_initialised, gradients
from peft import LoraConfig
from toys import FAMILIES, build_model, lively_model, liven_adapters

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
)

# Adding and dropping tasks


MORE = [
    TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2"),
    TextClassification(name="type", labels=["x", "y"]),
    TextClassification(name="mean", labels=["x", "y"], pooling="mean"),
    MultiLabelClassification(name="c%2E.d", labels=["u", "v"]),
    Regression(name="number"),
]


def lora(**options):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})


def adapted(*names, family="bert", tasks=TASKS, **options):
    """Build a model with adapters that change the logits of their tasks."""
    model = lively_model(tasks, family)
    for name in names:
        model.add_adapter(lora(**options), name)
    return liven_adapters(model)


def logits_of(model, **options):
    batch = a_batch()
    with torch.no_grad():
        return model(batch["input_ids"], batch["attention_mask"], **options).logits


def assert_equal(one, other, names=None):
    """Check that tensors are equal to the bit."""
    for name in one if names is None else names:
        assert torch.equal(one[name], other[name]), name


def reloaded(model, folder, **options):
    """Save and load a model, and check that no weights are missing or unexpected."""
    model.save_pretrained(folder)
    loaded, report = MultitaskModel.from_pretrained(folder, output_loading_info=True, **options)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert loaded.config.tasks == model.config.tasks
    assert loaded.config.adapters == model.config.adapters
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert_equal(loaded.state_dict(), model.state_dict())
    return aligned(loaded).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tasks_have_new_heads_and_leave_existing_tasks_bit_equal(family, tmp_path):
    model = adapted("train", "shared", family=family)
    before, state = logits_of(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for task in MORE:
        model.add_task(task)
    assert_equal(logits_of(model), before, NAMES)
    assert_equal(model.state_dict(), state, state)
    assert list(model.tasks.values()) == [*TASKS, *MORE]
    assert model.config.get_tasks() == [*TASKS, *MORE]
    for head in list(model.heads)[len(TASKS) :]:
        assert_freshly_initialised(head, MODERNBERT_STD if family == "modernbert" else {})
    assert not model.training
    assert not any(head.training for head in model.heads)
    assert_equal(logits_of(reloaded(model, tmp_path)), logits_of(model))


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert", "splinter"])
def test_added_task_has_the_same_head_as_in_a_new_model(family):
    grown, whole = build_model(TASKS[:1], family), build_model([TASKS[0], *MORE], family)
    for task in MORE:
        grown.add_task(task)
    assert grown.config.to_dict() == whole.config.to_dict()
    assert [(name, p.shape) for name, p in grown.named_parameters()] == [
        (name, p.shape) for name, p in whole.named_parameters()
    ]
    assert [type(module) for module in grown.modules()] == [type(module) for module in whole.modules()]


def test_added_task_can_be_trained_and_get_an_adapter(tmp_path):
    model = adapted("train")
    model.train()
    model.add_task(MORE[1])
    assert all(head.training for head in model.heads)
    model.add_adapter(lora(), "type")
    batch = a_batch()
    batch["rows"]["type"], batch["labels"]["type"] = torch.tensor([0, 5]), torch.tensor([1, 0])
    gradient = gradients(model, model(**batch).loss)
    assert gradient["heads.4.stock.classifier.weight"].any()
    assert gradient["encoder.encoder.layer.0.output.dense.lora_B.task_type.weight"].any()
    liven_adapters(model)
    model.eval()
    assert_equal(logits_of(reloaded(model, tmp_path)), logits_of(model))


@pytest.mark.parametrize("dropped", [["train"], ["a.b"], ["forward", "train"], ["tags", "a.b", "train"]])
def test_dropped_task_leaves_the_remaining_tasks_bit_equal(dropped, tmp_path):
    model = adapted("train", "a.b", "shared")
    before, kept = logits_of(model), [name for name in NAMES if name not in dropped]
    heads = {name: head.state_dict() for name, head in zip(NAMES, copy.deepcopy(model.heads), strict=True)}
    for name in dropped:
        model.drop_task(name)
    assert list(model.tasks) == [task.name for task in model.config.get_tasks()] == kept
    assert model.adapter_names == [name for name in ("train", "a.b", "shared") if name not in dropped]
    for name, head in zip(kept, model.heads, strict=True):
        assert_equal(head.state_dict(), heads[name])
    after = logits_of(model)
    assert list(after) == kept
    assert_equal(after, before, kept)
    assert not [key for key in model.state_dict() for name in dropped if name == "train" and "task_train" in key]
    assert_equal(logits_of(reloaded(model, tmp_path)), before, kept)


def test_dropped_task_can_be_added_again_with_a_new_head():
    model = adapted("train")
    before = logits_of(model)
    model.drop_task("train")
    model.add_task(TASKS[0])
    assert list(model.tasks) == [*NAMES[1:], "train"]
    assert model.adapter_names == []
    assert_equal(logits_of(model), before, NAMES[1:])
    assert_freshly_initialised(model.heads[-1], {})


def test_invalid_additions_and_removals_of_tasks_change_nothing():
    model = adapted("train")
    config, keys = model.config.to_dict(), list(model.state_dict())
    for task, message in [
        (TextClassification(name="a.b", labels=["x"]), r"^Task names must be unique\. Found \['train', 'a.b', "),
        (TokenClassification(name="pos"), "^Task 'pos' has no labels. Give its label space before building the model"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.add_task(task)
    with pytest.raises(ValueError, match=r"^No task 'ab'\. The model has train, a\.b, tags, forward\.$"):
        model.drop_task("ab")
    assert (model.config.to_dict(), list(model.state_dict())) == (config, keys)
    assert list(model.tasks) == NAMES
    with pytest.raises(ValueError, match=r"^Each adapter should .* should have no task named `shared`\."):
        model.add_task(TextClassification(name="shared", labels=["x", "y"]))
    assert (model.config.to_dict(), list(model.state_dict())) == (config, keys)


def test_only_task_cannot_be_dropped():
    model = build_model(TASKS[:1])
    with pytest.raises(ValueError, match=r"^'train' cannot be dropped, since it is the only task of the model\.$"):
        model.drop_task("train")
    assert list(logits_of(model)) == ["train"]


# Adding and deleting adapters


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"target_modules": ["query"]}])
def test_adapter_layers_are_removed_with_the_last_adapter(options, tmp_path):
    plain = lively_model(TASKS)
    model = adapted("train", "a.b", **options)
    before = logits_of(model)
    model.delete_adapter("train")
    assert model.adapter_names == ["a.b"]
    assert_equal(logits_of(model), before, ["a.b"])
    assert_equal(logits_of(model), logits_of(plain), ["train", "tags", "forward"])
    assert not any("task_train" in key for key in model.state_dict())
    one_less = copy.deepcopy(model)
    model.delete_adapter(["a.b"])
    assert model.config.adapters is None
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [(name, type(module)) for name, module in model.named_modules()] == [
        (name, type(module)) for name, module in plain.named_modules()
    ]
    assert_equal(logits_of(model), logits_of(plain))
    assert model.config.to_dict() == plain.config.to_dict()
    assert_equal(logits_of(reloaded(model, tmp_path / "none")), logits_of(plain))
    assert_equal(logits_of(reloaded(one_less, tmp_path / "one")), logits_of(one_less))
    model.add_adapter(lora(), "train")
    assert_equal(logits_of(model), logits_of(plain))


def test_shared_adapter_applies_to_all_tasks_until_it_is_deleted():
    model, plain = adapted("shared", "train"), lively_model(TASKS)
    own = adapted("train")
    own.load_state_dict(model.state_dict(), strict=False)
    assert not any(torch.equal(one, logits_of(plain)[name]) for name, one in logits_of(model).items())
    model.delete_adapter("shared")
    assert_equal(logits_of(model), logits_of(own))
    assert_equal(logits_of(model), logits_of(plain), NAMES[1:])


def test_missing_adapters_cannot_be_deleted():
    model = adapted("train")
    with pytest.raises(ValueError, match=r"^No adapter 'a\.b'\. The model has train\.$"):
        model.delete_adapter("a.b")
    with pytest.raises(ValueError, match=r"^No adapter 'shared'\. The model has none\.$"):
        build_model(TASKS).delete_adapter("shared")
    assert model.adapter_names == ["train"]


def test_dora_with_a_shared_adapter_is_refused_and_changes_nothing():
    for first, then in (("shared", "train"), ("train", "shared")):
        model = build_model(TASKS)
        model.add_adapter(lora(use_dora=first == "train"), first)
        keys = list(model.state_dict())
        with pytest.raises(
            ValueError, match="DoRA adapters cannot be added up, so `use_dora` does not work with a shared"
        ):
            model.add_adapter(lora(use_dora=then == "train"), then)
        assert model.adapter_names == [first]
        assert list(model.state_dict()) == keys


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_added_parts_have_the_dtype_of_the_model(dtype, tmp_path):
    model = build_model(TASKS[:2]).to(dtype)
    model.add_adapter(lora(), "train")
    model.add_adapter(lora(r=2), "shared")
    model.add_task(MORE[0])
    model.add_adapter(lora(use_rslora=True), "ner")
    liven_adapters(model)
    built = [model, reloaded(model, tmp_path, dtype=dtype), model.merge_and_unload("ner"), reloaded(model, tmp_path)]
    for each in built:
        assert {tensor.dtype for tensor in each.state_dict().values()} == {dtype}
        assert each.dtype == dtype
        assert logits_of(each)["ner"].dtype == dtype


# Parts and freezing


def test_parts_cover_all_parameters_once():
    model = adapted("train", "a.b", "shared")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parts = {part: [names[id(p)] for p in model.parameters_of(part)] for part in ("encoder", *NAMES)}
    together = [name for of_part in parts.values() for name in of_part]
    assert sorted(together) == sorted(names.values())
    for number, name in enumerate(NAMES):
        of_head = [each for each in parts[name] if each.startswith(f"heads.{number}.")]
        of_adapter = [each for each in parts[name] if each not in of_head]
        assert of_head
        assert bool(of_adapter) == (name in {"train", "a.b"})
        inside = {"train": ".task_train.", "a.b": ".escaped_task_a_2e_b."}
        assert all("lora_" in each and inside[name] in each for each in of_adapter)
    assert any(".shared." in each for each in parts["encoder"])
    assert not any("task_" in each for each in parts["encoder"])


@pytest.mark.parametrize(
    "parts", [["encoder"], ["a.b"], ["train", "tags"], ["encoder", "forward"], ["embeddings", "layers 1"], []]
)
def test_only_frozen_parts_are_unchanged_by_training(parts):
    model = adapted("train", "a.b", "shared")
    model.train()
    model.freeze(*parts)
    frozen = {id(parameter) for part in parts for parameter in model.parameters_of(part)}
    assert all(parameter.requires_grad == (id(parameter) not in frozen) for parameter in model.parameters())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model(**a_batch()).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if id(parameter) in frozen:
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name
        elif "word_embeddings" not in name and "key.bias" not in name and "key.base_layer.bias" not in name:
            assert not torch.equal(parameter, before[name]), name  # outputs do not depend on the bias of the keys


def test_adapter_of_a_frozen_encoder_is_trainable():
    model = build_model(TASKS)
    model.freeze("encoder")
    model.add_adapter(lora(), "train")
    model.add_adapter(lora(), "shared")
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.encoder.named_parameters())
    model.freeze("encoder")
    assert all(p.requires_grad == (".task_train." in name) for name, p in model.encoder.named_parameters())


def test_frozen_parts_stay_frozen_when_an_adapter_is_deleted():
    model = adapted("train", "a.b")
    model.freeze("encoder", "tags")
    model.delete_adapter(["train", "a.b"])
    heads = {id(p) for name in ("train", "a.b", "forward") for p in model.parameters_of(name)}
    assert all(p.requires_grad == (id(p) in heads) for p in model.parameters())


def test_unknown_part_is_refused_with_the_valid_ones():
    model = build_model(TASKS)
    for ask in (model.parameters_of, model.freeze):
        with pytest.raises(
            ValueError, match=r"^No part 'pos'\. The model has encoder, train, a\.b, tags, forward, and "
        ):
            ask("pos")


# Merging


@pytest.mark.parametrize("task", ["train", "a.b", "tags"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True, "r": 3}])
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert", "albert"])
def test_merged_model_has_one_task_no_adapters_and_equal_logits(family, options, task, tmp_path):
    model = adapted("train", *([] if "use_dora" in options else ["shared"]), "a.b", family=family, **options)
    before, state = logits_of(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged = model.merge_and_unload(task)
    assert list(merged.tasks) == [task]
    assert merged.config.adapters is None
    plain = build_model([task for task in TASKS if task.name in merged.tasks], family)
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert merged.config.to_dict() == {**plain.config.to_dict(), "splits_words": model.config.reads_words}
    torch.testing.assert_close(logits_of(merged)[task], before[task], rtol=1e-4, atol=1e-5)
    assert_equal(logits_of(reloaded(merged, tmp_path)), logits_of(merged))
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert_equal(model.state_dict(), state)
    assert_equal(logits_of(model), before)


def test_extracted_task_without_adapters_is_bit_equal():
    model = adapted("train")
    merged = model.merge_and_unload("tags")
    assert_equal(logits_of(merged), logits_of(model), ["tags"])
    assert list(build_model(TASKS).merge_and_unload("a.b").tasks) == ["a.b"]


def test_merged_model_keeps_mode_attention_and_limits():
    model = adapted("train").train()
    model.config.max_length, model.config.stride = 20, 5
    model.set_attn_implementation("eager")
    merged = model.merge_and_unload("train")
    assert merged.training
    assert (merged.config.max_length, merged.config.stride) == (20, 5)
    assert merged.encoder.config._attn_implementation == "eager"
    assert all(parameter.requires_grad for parameter in merged.parameters())
    with pytest.raises(ValueError, match=r"^No task 'pos'\. The model has train, a\.b, tags, forward\.$"):
        model.merge_and_unload("pos")


def test_model_without_its_last_word_task_still_reads_words(tmp_path):
    pos = TokenClassification(name="pos", labels=["A", "B"])
    topic = TextClassification(name="topic", labels=["x", "y"])
    model = build_model([pos, topic])
    merged = model.merge_and_unload("topic")
    model.drop_task("pos")
    for without in (model, merged):
        assert without.config.reads_words and reloaded(without, tmp_path).config.reads_words
    never = build_model([topic])
    assert not never.merge_and_unload("topic").config.reads_words


def test_a_model_shows_its_heads_by_task_and_escapes_their_names():
    model = adapted("train")
    lines = repr(model).splitlines()
    assert lines[0].startswith("MultitaskModel(")
    assert [line.split()[1].rstrip(":") for line in lines if line.startswith("  head ")] == NAMES
    assert lines[-1] == "  adapter train"
    model.add_task(TextClassification(name="<b>", labels=["x", "y"]))
    assert "  head &lt;b&gt;: text-classification, 2 labels (x, y)" in model._repr_html_()
