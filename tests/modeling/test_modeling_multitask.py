"""The multitask model: saving, building from an encoder, the forward pass and the joint loss."""

import pytest
import torch
import torch.distributed as dist
from four_tasks import MODERNBERT_STD, NAMES, TASKS, a_batch, aligned, assert_freshly_initialised, gradients
from safetensors import safe_open
from toys import build_config, build_model
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertForSequenceClassification

from mtl_nlp import (
    MultitaskConfig,
    MultitaskModel,
    TokenClassification,
    joint_loss,
)
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step

BY_NAME = {task.name: task for task in TASKS}


def assert_same(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=name)


@pytest.fixture
def distributed(tmp_path):
    """A process group of one process, in which every parameter gets a gradient."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "deberta-v2"])
def test_saved_model_round_trips_bit_equal(family, tmp_path):
    model, batch = build_model(TASKS, family), a_batch()
    model.save_pretrained(tmp_path)
    loaded = aligned(MultitaskModel.from_pretrained(tmp_path)).eval()
    assert list(loaded.tasks.values()) == TASKS
    ours, theirs = model(**batch), loaded(**batch)
    assert all(torch.equal(ours.logits[name], theirs.logits[name]) for name in NAMES)
    assert torch.equal(ours.loss, theirs.loss)


def test_encoder_is_stored_once_and_stays_shared(tmp_path):
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


def test_auto_classes_load_the_model(tmp_path):
    build_model(TASKS).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is MultitaskConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is MultitaskModel


def test_resized_embeddings_match_the_configuration(tmp_path):
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
def test_pretrained_weights_are_kept(family, encoder_folder):
    model = MultitaskModel.from_encoder(encoder_folder(family), TASKS, max_length=20, stride=5)
    pretrained = AutoModel.from_pretrained(encoder_folder(family)).state_dict()
    kept = model.encoder.state_dict()
    assert all(torch.equal(kept[name], pretrained[name]) for name in kept)
    assert pretrained.keys() - kept.keys() <= {name for name in pretrained if name.startswith("pooler")}
    assert (model.config.max_length, model.config.stride) == (20, 5)
    assert model.config.text_config._name_or_path == ""


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_heads_start_from_the_pretrained_pooler_like_the_stock_class(family, encoder_folder):
    model = MultitaskModel.from_encoder(encoder_folder(family), TASKS)
    stock = AutoModelForSequenceClassification.from_pretrained(encoder_folder(family))
    expected = stock.base_model.pooler.state_dict()
    for head in list(model.heads)[1:]:
        own = head.encoder_stand_in.pooler.state_dict()
        assert all(torch.equal(own[name], expected[name]) for name in expected)
    poolers = [head.encoder_stand_in.pooler for head in list(model.heads)[1:]]
    assert len({id(pooler) for pooler in poolers}) == 3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_dtype_and_attention_reach_the_encoder(implementation, encoder_folder, tmp_path):
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


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "splinter"])
def test_new_heads_are_initialised_like_those_of_the_family(family):
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
def test_model_without_tasks_or_labels_is_refused(tasks, message):
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


def test_batch_of_different_tasks_equals_separate_batches():
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


def test_without_rows_every_task_predicts_every_row():
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


def test_batch_without_attention_mask_has_no_padding():
    model, ids = build_model(TASKS), torch.randint(3, 500, (2, 7))
    assert_same(model(ids).logits, model(ids, torch.ones_like(ids)).logits, 0)


def test_token_type_ids_reach_the_encoder():
    model, ids = build_model(TASKS), torch.randint(3, 500, (2, 7))
    first = model(ids, token_type_ids=torch.zeros_like(ids)).logits["a.b"]
    assert torch.equal(first, model(ids).logits["a.b"])
    assert not torch.equal(first, model(ids, token_type_ids=torch.ones_like(ids)).logits["a.b"])


def test_tasks_without_rows_give_zero_loss_and_zero_gradients(distributed):
    model = build_model(TASKS)
    batch = a_batch(rows={"train": [], "a.b": [0, 3], "tags": [], "forward": []})
    output = model(**batch)
    assert [output.loss_sums[name].item() for name in ("train", "tags", "forward")] == [0, 0, 0]
    gradient = gradients(model, output.loss)
    idle = [values for name, values in gradient.items() if name.startswith(("heads.0.", "heads.2.", "heads.3."))]
    assert idle
    assert not any(values.any() for values in idle)
    assert gradient["heads.1.stock.classifier.weight"].any()


def test_a_single_process_spares_the_gradients_of_tasks_without_rows():
    model = build_model(TASKS)
    batch = a_batch(rows={"train": [], "a.b": [0, 3], "tags": [], "forward": []})
    model(**batch).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert {name.split(".")[1] for name in without} == {"0", "2", "3"}
    assert all(name.startswith("heads.") for name in without)
    model.zero_grad()
    model.encoder.requires_grad_(False)
    model.heads[1].requires_grad_(False)  # now the zeros are the only gradients, and `backward` needs one
    model(**batch).loss.backward()
    assert all(not parameter.grad.any() for parameter in model.heads[0].parameters())


def test_unlabelled_batch_gives_a_zero_loss_and_zero_gradients_everywhere(distributed):
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


def test_loss_of_one_task_with_ignored_words_equals_the_stock_loss():
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


def test_joint_loss_follows_the_formula():
    sums = {"pos": torch.tensor(12.0), "topic": torch.tensor(3.0), "idle": torch.tensor(0.0)}
    counts = StepCounts(rows=8, task_rows={"pos": 2, "topic": 6, "idle": 0}, units={"pos": 30, "topic": 6, "idle": 0})
    # 2/8 · 12/30 + 6/8 · 3/6
    assert joint_loss(sums, counts).item() == pytest.approx(0.1 + 0.375)
    assert joint_loss(sums, counts, {"pos": 2.0, "idle": 9.0}).item() == pytest.approx(0.2 + 0.375)
    assert joint_loss(sums, counts, scale="per_task").item() == pytest.approx(0.4 + 0.5)
    assert joint_loss(sums, counts, {"topic": 0.5}, "per_task").item() == pytest.approx(0.4 + 0.25)


def test_loss_of_a_word_task_does_not_depend_on_the_text_length():
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
@pytest.mark.parametrize("is_weighted", [False, True])
def test_micro_batch_losses_add_up_to_the_loss_of_the_step(scale, is_weighted):
    model, batches = (
        build_model(TASKS),
        [a_batch(0), a_batch(1, {"train": [2], "a.b": [], "tags": [1, 3], "forward": [0]})],
    )
    if is_weighted:
        batches[1]["weights"] = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0, 0.25])
    counts = count_step(batches, BY_NAME)
    weights = {"train": 0.5, "tags": 3.0}
    shares = [joint_loss(model(**batch).loss_sums, counts, weights, scale) for batch in batches]
    whole = {
        "input_ids": torch.cat([batch["input_ids"] for batch in batches]),
        "attention_mask": torch.cat([batch["attention_mask"] for batch in batches]),
        "rows": {name: torch.cat([batches[0]["rows"][name], batches[1]["rows"][name] + 6]) for name in NAMES},
        "labels": {name: torch.cat([batch["labels"][name] for batch in batches]) for name in NAMES},
    }
    if is_weighted:  # a batch without weights has weights of 1
        whole["weights"] = torch.cat([torch.ones(6), batches[1]["weights"]])
    loss = joint_loss(model(**whole).loss_sums, count_step([whole], BY_NAME), weights, scale)
    torch.testing.assert_close(sum(shares), loss)
    assert_same(gradients(model, sum(shares)), gradients(model, loss))


def test_loss_of_the_model_is_the_joint_loss_of_the_batch():
    model, batch = build_model(TASKS), a_batch()
    output = model(**batch)
    assert torch.equal(output.loss, joint_loss(output.loss_sums, count_step([batch], BY_NAME)))


def test_labels_of_one_task_without_rows_give_the_loss_of_this_task(distributed):
    model, batch = build_model(TASKS), a_batch()
    inputs = {key: value for key, value in batch.items() if key not in {"rows", "labels"}}
    labels = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
    output = model(**inputs, labels={"a.b": labels})
    expected = torch.nn.functional.cross_entropy(output.logits["a.b"], labels)
    torch.testing.assert_close(output.loss, expected)
    assert [name for name, loss in output.loss_sums.items() if loss] == ["a.b"]
    assert all(len(logits) == len(labels) for logits in output.logits.values())
    assert gradients(model, output.loss).keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2), r"`labels` should be a dict from tasks of the model \(train, .*Found Tensor\.$"),
        ({"a.c": torch.zeros(2)}, r"`labels` should be a dict .*Found the names 'a.c'\.$"),
        ({"a.b": torch.zeros(1)}, r"task 'a.b' should have labels for all \d+ rows of the batch\. Found 1\."),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused_in_one_line(labels, message):
    inputs = {key: value for key, value in a_batch().items() if key not in {"rows", "labels"}}
    with pytest.raises(ValueError, match=message):
        build_model(TASKS)(**inputs, labels=labels)


def test_head_can_be_moved_to_its_stock_class():
    model = build_model(TASKS)
    stock = BertForSequenceClassification(build_config("bert", num_labels=2)).eval()
    stock.load_state_dict(model.heads[1].stock.state_dict(), strict=False)
    stock.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    ids = torch.randint(3, 500, (2, 7))
    assert torch.equal(stock(ids).logits, model(ids).logits["a.b"])
