"""The multitask model: one encoder, shared and stored once, its parts, and the joint loss."""

import copy
import math

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from toys import FAMILIES, build_config, build_model, lively_model, liven_adapters
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertForSequenceClassification

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskConfig,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
    joint_loss,
)
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step

TASKS = [
    TokenClassification(name="train", labels=["a", "b", "c"]),
    TextClassification(name="a.b", labels=["x", "y"]),
    MultiLabelClassification(name="tags", labels=["u", "v", "w"]),
    Regression(name="forward"),
]
NAMES = [task.name for task in TASKS]
BY_NAME = {task.name: task for task in TASKS}


def a_batch(seed=0, rows=None):
    """Six rows; each task labels some of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"train": [0, 1, 4], "a.b": [1, 2, 3, 4], "tags": [4], "forward": [5, 0]} if rows is None else rows
    attention_mask = (torch.arange(8) < torch.tensor([[8], [3], [5], [2], [8], [6]])).long()
    words = torch.randint(0, 3, (len(rows["train"]), 8), generator=generator)
    labels = {
        "train": words.masked_fill(attention_mask[rows["train"]] == 0, -100),
        "a.b": torch.randint(0, 2, (len(rows["a.b"]),), generator=generator),
        "tags": torch.randint(0, 2, (len(rows["tags"]), 3), generator=generator).float(),
        "forward": torch.randn(len(rows["forward"]), generator=generator),
    }
    return {
        "input_ids": torch.randint(3, 500, (6, 8), generator=generator) * attention_mask,
        "attention_mask": attention_mask,
        "rows": {task: torch.tensor(index, dtype=torch.long) for task, index in rows.items()},
        "labels": labels,
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=name)


# Saving and loading


def aligned(model):
    """Weights moved to where torch allocates: matrix kernels round by the alignment of a mapped file's tensors."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "deberta-v2"])
def test_a_saved_model_comes_back_bit_equal(family, tmp_path):
    model, batch = build_model(TASKS, family), a_batch()
    model.save_pretrained(tmp_path)
    loaded = aligned(MultitaskModel.from_pretrained(tmp_path)).eval()
    assert list(loaded.tasks.values()) == TASKS
    ours, theirs = model(**batch), loaded(**batch)
    assert all(torch.equal(ours.logits[name], theirs.logits[name]) for name in NAMES)
    assert torch.equal(ours.loss, theirs.loss)


def test_the_encoder_is_stored_once_and_still_shared(tmp_path):
    model = build_model(TASKS)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        sizes = {name: stored.get_tensor(name).numel() for name in stored.keys()}  # noqa: SIM118
    of_encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    assert sum(size for name, size in sizes.items() if name.startswith("encoder.")) == of_encoder
    assert sum(name.endswith("word_embeddings.weight") for name in sizes) == 1
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in model.parameters())
    loaded = MultitaskModel.from_pretrained(tmp_path)
    encoders = [module for module in loaded.modules() if type(module) is type(model.encoder)]
    assert encoders == [loaded.encoder]


def test_the_auto_classes_load_it(tmp_path):
    build_model(TASKS).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is MultitaskConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is MultitaskModel


def test_resized_embeddings_stay_in_step_with_the_configuration(tmp_path):
    model = build_model(TASKS)
    model.resize_token_embeddings(507)
    assert model.config.text_config.vocab_size == 507
    assert model.encoder.embeddings.word_embeddings.num_embeddings == 507
    model.save_pretrained(tmp_path)
    loaded = aligned(MultitaskModel.from_pretrained(tmp_path)).eval()
    ids = torch.tensor([[1, 506, 2]])
    assert torch.equal(loaded(ids).logits["a.b"], model(ids).logits["a.b"])


# Building from an encoder


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2", "modernbert", "distilbert"])
def test_the_pretrained_weights_are_kept(family, encoder_folder):
    model = MultitaskModel.from_encoder(encoder_folder(family), TASKS, max_length=20, stride=5)
    pretrained = AutoModel.from_pretrained(encoder_folder(family)).state_dict()
    kept = model.encoder.state_dict()
    assert all(torch.equal(kept[name], pretrained[name]) for name in kept)
    assert pretrained.keys() - kept.keys() <= {name for name in pretrained if name.startswith("pooler")}
    assert (model.config.max_length, model.config.stride) == (20, 5)
    assert model.config.text_config._name_or_path == ""


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_heads_start_from_the_pretrained_pooler_as_the_stock_class_does(family, encoder_folder):
    model = MultitaskModel.from_encoder(encoder_folder(family), TASKS)
    stock = AutoModelForSequenceClassification.from_pretrained(encoder_folder(family))
    expected = stock.base_model.pooler.state_dict()
    for head in list(model.heads)[1:]:
        own = head.encoder_stand_in.pooler.state_dict()
        assert all(torch.equal(own[name], expected[name]) for name in expected)
    poolers = [head.encoder_stand_in.pooler for head in list(model.heads)[1:]]
    assert len({id(pooler) for pooler in poolers}) == 3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_dtype_and_attention_are_handed_through(implementation, encoder_folder, tmp_path):
    options = {"dtype": torch.bfloat16, "attn_implementation": implementation}
    model = MultitaskModel.from_encoder(encoder_folder("bert"), TASKS, **options)
    model.save_pretrained(tmp_path)
    for built in (model, MultitaskModel.from_pretrained(tmp_path, **options)):
        assert {parameter.dtype for parameter in built.parameters()} == {torch.bfloat16}
        assert built.encoder.config._attn_implementation == implementation
        assert built.config._attn_implementation == implementation
        output = built(**a_batch())
        assert output.logits["a.b"].dtype == torch.bfloat16
        assert output.loss.dtype == torch.float32
        assert output.loss.isfinite()


def test_eager_and_sdpa_attention_agree(encoder_folder):
    one, other = (
        MultitaskModel.from_encoder(encoder_folder("bert"), TASKS, attn_implementation=name)
        for name in ("eager", "sdpa")
    )
    other.load_state_dict(one.state_dict())
    assert_same(one.eval()(**a_batch()).logits, other.eval()(**a_batch()).logits)


MODERNBERT_STD = {"stock.head.dense.weight": 0.02 / math.sqrt(2 * 2), "stock.classifier.weight": 32**-0.5}


def assert_freshly_initialised(module, stds):
    for name, parameter in module.named_parameters():
        assert parameter.isfinite().all(), name
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
        else:
            std = stds.get(name, 0.02)
            assert 0.6 * std < parameter.std() < 1.5 * std, name


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "splinter"])
def test_new_heads_are_initialised_as_the_family_does(family):
    for head in build_model(TASKS, family).heads:
        assert_freshly_initialised(head, MODERNBERT_STD if family == "modernbert" else {})


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "splinter"])
def test_heads_missing_in_a_checkpoint_are_initialised_too(family, tmp_path):
    model = build_model(TASKS[:1], family)
    model.save_pretrained(tmp_path)
    config = MultitaskConfig(text_config=model.config.text_config, tasks=TASKS)
    loaded, report = MultitaskModel.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert report["missing_keys"]
    assert all(key.startswith(("heads.1.", "heads.2.", "heads.3.")) for key in report["missing_keys"])
    for head in list(loaded.heads)[1:]:
        assert_freshly_initialised(head, MODERNBERT_STD if family == "modernbert" else {})
    kept = model.state_dict()
    assert all(torch.equal(loaded.state_dict()[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "needs at least one task. Found none"),
        ([TokenClassification(name="pos")], "Task 'pos' has no labels. Give its label space before building the model"),
    ],
)
def test_a_model_without_tasks_or_labels_is_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        MultitaskModel(MultitaskConfig(text_config=build_config("bert"), tasks=tasks))


# The forward pass


@pytest.mark.parametrize("chosen", [1, 4])
def test_one_encoder_pass_serves_all_tasks(chosen):
    model, passes = build_model(TASKS), []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    output = model(**a_batch(), tasks=NAMES[:chosen])
    assert list(output.logits) == NAMES[:chosen]
    assert passes == [1]


def test_a_batch_of_different_tasks_equals_a_batch_for_each():
    model, batch = build_model(TASKS), a_batch()
    output = model(**batch)
    for name in NAMES:
        index = batch["rows"][name]
        alone = model(
            batch["input_ids"][index],
            batch["attention_mask"][index],
            rows={name: torch.arange(len(index))},
            labels={name: batch["labels"][name]},
            tasks=[name],
        )
        torch.testing.assert_close(output.logits[name], alone.logits[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(output.loss_sums[name], alone.loss_sums[name], rtol=1e-6, atol=1e-6)


def test_without_rows_every_task_answers_for_every_row():
    model, batch = build_model(TASKS), a_batch()
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    assert {name: tuple(values.shape) for name, values in logits.items()} == {
        "train": (6, 8, 3),
        "a.b": (6, 2),
        "tags": (6, 3),
        "forward": (6, 1),
    }
    labels = torch.tensor([0, 1, 1, 0, 0, 1])
    loss = model(batch["input_ids"], batch["attention_mask"], labels={"a.b": labels}, tasks=["a.b"]).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits["a.b"], labels))


def test_no_attention_mask_means_nothing_is_padding():
    model, ids = build_model(TASKS), torch.randint(3, 500, (2, 7))
    assert_same(model(ids).logits, model(ids, torch.ones_like(ids)).logits, 0)


def test_token_type_ids_reach_the_encoder():
    model, ids = build_model(TASKS), torch.randint(3, 500, (2, 7))
    first = model(ids, token_type_ids=torch.zeros_like(ids)).logits["a.b"]
    assert torch.equal(first, model(ids).logits["a.b"])
    assert not torch.equal(first, model(ids, token_type_ids=torch.ones_like(ids)).logits["a.b"])


def test_tasks_without_rows_give_no_loss_but_touch_their_parameters():
    model = build_model(TASKS)
    batch = a_batch(rows={"train": [], "a.b": [0, 3], "tags": [], "forward": []})
    output = model(**batch)
    assert [output.loss_sums[name].item() for name in ("train", "tags", "forward")] == [0, 0, 0]
    gradient = gradients(model, output.loss)
    idle = [values for name, values in gradient.items() if name.startswith(("heads.0.", "heads.2.", "heads.3."))]
    assert idle
    assert not any(values.any() for values in idle)
    assert gradient["heads.1.stock.classifier.weight"].any()


def test_a_batch_that_labels_nothing_is_a_zero_loss_that_touches_everything():
    model = build_model(TASKS)
    output = model(**a_batch(rows={name: [] for name in NAMES}))
    assert output.loss.item() == 0
    assert not any(values.any() for values in gradients(model, output.loss).values())


def test_gradient_checkpointing_changes_nothing():
    model = build_model(TASKS).train()
    expected = gradients(model, model(**a_batch()).loss)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    assert_same(gradients(model, model(**a_batch()).loss), expected)


def test_one_task_alone_has_the_stock_loss_with_ignored_words():
    model = build_model(TASKS[:1])
    batch = a_batch()
    batch = {**batch, "rows": {"train": batch["rows"]["train"]}, "labels": {"train": batch["labels"]["train"]}}
    index = batch["rows"]["train"]
    batch |= {"input_ids": batch["input_ids"][index], "attention_mask": batch["attention_mask"][index]}
    batch["rows"]["train"] = torch.arange(3)
    output = model(**batch)
    expected = torch.nn.functional.cross_entropy(
        output.logits["train"].flatten(0, 1), batch["labels"]["train"].flatten()
    )
    torch.testing.assert_close(output.loss, expected)


# The joint loss


def test_the_joint_loss_follows_its_formula():
    sums = {"pos": torch.tensor(12.0), "topic": torch.tensor(3.0), "idle": torch.tensor(0.0)}
    counts = StepCounts(rows=8, task_rows={"pos": 2, "topic": 6, "idle": 0}, units={"pos": 30, "topic": 6, "idle": 0})
    # 2/8 · 12/30 + 6/8 · 3/6
    assert joint_loss(sums, counts).item() == pytest.approx(0.1 + 0.375)
    assert joint_loss(sums, counts, {"pos": 2.0, "idle": 9.0}).item() == pytest.approx(0.2 + 0.375)
    assert joint_loss(sums, counts, scale="per_task").item() == pytest.approx(0.4 + 0.5)
    assert joint_loss(sums, counts, {"topic": 0.5}, "per_task").item() == pytest.approx(0.4 + 0.25)


def test_the_loss_of_a_word_task_does_not_depend_on_the_length_of_texts():
    counts = StepCounts(rows=4, task_rows={"pos": 4}, units={"pos": 10})
    longer = StepCounts(rows=4, task_rows={"pos": 4}, units={"pos": 1000})
    short, long = (joint_loss({"pos": torch.tensor(0.7 * c.units["pos"])}, c) for c in (counts, longer))
    torch.testing.assert_close(short, long)


def test_counts_of_a_step_add_up():
    batches = [a_batch(0), a_batch(1, {"train": [2], "a.b": [], "tags": [1, 3], "forward": [0]})]
    one, other = (count_step([batch], BY_NAME) for batch in batches)
    both = count_step(batches, BY_NAME)
    assert one + other == both
    assert both.rows == 12
    assert both.task_rows == {"train": 4, "a.b": 4, "tags": 3, "forward": 3}
    assert both.units == {"train": 8 + 3 + 8 + 5, "a.b": 4, "tags": 9, "forward": 3}


@pytest.mark.parametrize("scale", ["rows", "per_task"])
def test_the_shares_of_micro_batches_add_up_to_the_whole_steps_loss(scale):
    model, batches = (
        build_model(TASKS),
        [a_batch(0), a_batch(1, {"train": [2], "a.b": [], "tags": [1, 3], "forward": [0]})],
    )
    counts = count_step(batches, BY_NAME)
    weights = {"train": 0.5, "tags": 3.0}
    shares = [joint_loss(model(**batch).loss_sums, counts, weights, scale) for batch in batches]
    whole = {
        "input_ids": torch.cat([batch["input_ids"] for batch in batches]),
        "attention_mask": torch.cat([batch["attention_mask"] for batch in batches]),
        "rows": {name: torch.cat([batches[0]["rows"][name], batches[1]["rows"][name] + 6]) for name in NAMES},
        "labels": {name: torch.cat([batch["labels"][name] for batch in batches]) for name in NAMES},
    }
    loss = joint_loss(model(**whole).loss_sums, count_step([whole], BY_NAME), weights, scale)
    torch.testing.assert_close(sum(shares), loss)
    assert_same(gradients(model, sum(shares)), gradients(model, loss))


def test_the_models_own_loss_is_the_joint_loss_of_its_batch():
    model, batch = build_model(TASKS), a_batch()
    output = model(**batch)
    assert torch.equal(output.loss, joint_loss(output.loss_sums, count_step([batch], BY_NAME)))


def test_a_head_can_be_handed_to_its_stock_class():
    model = build_model(TASKS)
    stock = BertForSequenceClassification(build_config("bert", num_labels=2)).eval()
    stock.load_state_dict(model.heads[1].stock.state_dict(), strict=False)
    stock.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    ids = torch.randint(3, 500, (2, 7))
    assert torch.equal(stock(ids).logits, model(ids).logits["a.b"])


# Tasks that come and go


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
    """A model whose adapters change what they are for."""
    model = lively_model(tasks, family)
    for name in names:
        model.add_adapter(lora(**options), name)
    return liven_adapters(model)


def logits_of(model, **options):
    batch = a_batch()
    with torch.no_grad():
        return model(batch["input_ids"], batch["attention_mask"], **options).logits


def assert_equal(one, other, names=None):
    """To the bit."""
    for name in one if names is None else names:
        assert torch.equal(one[name], other[name]), name


def reloaded(model, folder, **options):
    """The model saved and loaded, of which nothing may be missing or too much."""
    model.save_pretrained(folder)
    loaded, told = MultitaskModel.from_pretrained(folder, output_loading_info=True, **options)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert loaded.config.tasks == model.config.tasks
    assert loaded.config.adapters == model.config.adapters
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert_equal(loaded.state_dict(), model.state_dict())
    return aligned(loaded).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tasks_leave_the_others_bit_equal_and_their_heads_are_new(family, tmp_path):
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
def test_an_added_task_has_the_head_that_a_new_model_has(family):
    grown, whole = build_model(TASKS[:1], family), build_model([TASKS[0], *MORE], family)
    for task in MORE:
        grown.add_task(task)
    assert grown.config.to_dict() == whole.config.to_dict()
    assert [(name, p.shape) for name, p in grown.named_parameters()] == [
        (name, p.shape) for name, p in whole.named_parameters()
    ]
    assert [type(module) for module in grown.modules()] == [type(module) for module in whole.modules()]


def test_an_added_task_can_be_trained_and_given_an_adapter(tmp_path):
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
def test_a_dropped_task_leaves_the_others_bit_equal(dropped, tmp_path):
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


def test_a_dropped_task_may_come_again_with_a_new_head():
    model = adapted("train")
    before = logits_of(model)
    model.drop_task("train")
    model.add_task(TASKS[0])
    assert list(model.tasks) == [*NAMES[1:], "train"]
    assert model.adapter_names == []
    assert_equal(logits_of(model), before, NAMES[1:])
    assert_freshly_initialised(model.heads[-1], {})


def test_tasks_that_cannot_be_added_or_dropped_change_nothing():
    model = adapted("train")
    config, keys = model.config.to_dict(), list(model.state_dict())
    for task, message in [
        (TextClassification(name="a.b", labels=["x"]), r"^Task names must be unique\. Found \['train', 'a.b', "),
        (TokenClassification(name="pos"), "^Task 'pos' has no labels. Give its label space before building the model"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.add_task(task)
    with pytest.raises(ValueError, match=r"^No task 'ab' beside others\. The model has train, a\.b, tags, forward\.$"):
        model.drop_task("ab")
    assert (model.config.to_dict(), list(model.state_dict())) == (config, keys)
    assert list(model.tasks) == NAMES
    with pytest.raises(ValueError, match=r"^Adapters should have the names of tasks .* which then no task may have"):
        model.add_task(TextClassification(name="shared", labels=["x", "y"]))
    assert (model.config.to_dict(), list(model.state_dict())) == (config, keys)


def test_the_only_task_is_not_dropped():
    model = build_model(TASKS[:1])
    with pytest.raises(ValueError, match=r"^No task 'train' beside others\. The model has train\.$"):
        model.drop_task("train")
    assert list(logits_of(model)) == ["train"]


# Adapters that come and go


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"target_modules": ["query"]}])
def test_the_layers_of_adapters_are_gone_with_the_last_one(options, tmp_path):
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


def test_the_shared_adapter_is_of_all_tasks_until_it_is_deleted():
    model, plain = adapted("shared", "train"), lively_model(TASKS)
    own = adapted("train")
    own.load_state_dict(model.state_dict(), strict=False)
    assert not any(torch.equal(one, logits_of(plain)[name]) for name, one in logits_of(model).items())
    model.delete_adapter("shared")
    assert_equal(logits_of(model), logits_of(own))
    assert_equal(logits_of(model), logits_of(plain), NAMES[1:])


def test_adapters_that_are_not_there_are_not_deleted():
    model = adapted("train")
    with pytest.raises(ValueError, match=r"^No adapter 'a\.b'\. The model has train\.$"):
        model.delete_adapter("a.b")
    with pytest.raises(ValueError, match=r"^No adapter 'shared'\. The model has none\.$"):
        build_model(TASKS).delete_adapter("shared")
    assert model.adapter_names == ["train"]


def test_dora_and_a_shared_adapter_are_refused_together_and_change_nothing():
    for first, then in (("shared", "train"), ("train", "shared")):
        model = build_model(TASKS)
        model.add_adapter(lora(use_dora=first == "train"), first)
        keys = list(model.state_dict())
        with pytest.raises(ValueError, match="DoRA adapters do not add up: `use_dora` goes without a shared adapter"):
            model.add_adapter(lora(use_dora=then == "train"), then)
        assert model.adapter_names == [first]
        assert list(model.state_dict()) == keys


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_added_has_the_models_dtype(dtype, tmp_path):
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


def test_the_parts_are_all_parameters_once():
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
        inside = {"train": ".task_train.", "a.b": ".task_a%2Eb."}
        assert all("lora_" in each and inside[name] in each for each in of_adapter)
    assert any(".shared." in each for each in parts["encoder"])
    assert not any("task_" in each for each in parts["encoder"])


@pytest.mark.parametrize("parts", [["encoder"], ["a.b"], ["train", "tags"], ["encoder", "forward"], []])
def test_frozen_parts_and_no_others_stay_as_they_are_in_training(parts):
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
            assert not torch.equal(parameter, before[name]), name  # no output depends on a bias of the keys


def test_an_adapter_of_a_frozen_encoder_is_trained():
    model = build_model(TASKS)
    model.freeze("encoder")
    model.add_adapter(lora(), "train")
    model.add_adapter(lora(), "shared")
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.encoder.named_parameters())
    model.freeze("encoder")
    assert all(p.requires_grad == (".task_train." in name) for name, p in model.encoder.named_parameters())


def test_what_is_frozen_stays_so_when_an_adapter_goes():
    model = adapted("train", "a.b")
    model.freeze("encoder", "tags")
    model.delete_adapter(["train", "a.b"])
    heads = {id(p) for name in ("train", "a.b", "forward") for p in model.parameters_of(name)}
    assert all(p.requires_grad == (id(p) in heads) for p in model.parameters())


def test_a_part_that_is_not_there_is_named():
    model = build_model(TASKS)
    for ask in (model.parameters_of, model.freeze):
        with pytest.raises(ValueError, match=r"^No part 'pos'\. The model has encoder, train, a\.b, tags, forward\.$"):
            ask("pos")


# Merging


@pytest.mark.parametrize("task", ["train", "a.b", "tags"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True, "r": 3}])
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert", "albert"])
def test_a_merged_model_is_a_plain_one_of_one_task_with_equal_logits(family, options, task, tmp_path):
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


def test_a_task_without_adapters_is_taken_out_bit_equal():
    model = adapted("train")
    merged = model.merge_and_unload("tags")
    assert_equal(logits_of(merged), logits_of(model), ["tags"])
    assert list(build_model(TASKS).merge_and_unload("a.b").tasks) == ["a.b"]


def test_a_merged_model_keeps_mode_attention_and_limits():
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


def test_a_model_that_loses_its_last_task_on_words_goes_on_reading_words(tmp_path):
    pos = TokenClassification(name="pos", labels=["A", "B"])
    topic = TextClassification(name="topic", labels=["x", "y"])
    model = build_model([pos, topic])
    merged = model.merge_and_unload("topic")
    model.drop_task("pos")
    for without in (model, merged):
        assert without.config.reads_words and reloaded(without, tmp_path).config.reads_words
    never = build_model([topic])
    assert not never.merge_and_unload("topic").config.reads_words
