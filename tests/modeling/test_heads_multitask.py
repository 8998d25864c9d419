"""Heads have the logits, losses and gradients of the stock classes."""

import dataclasses

import pytest
import torch
from families import a_family_batch, build_family, build_family_config
from torch import nn
from toys import FAMILIES, build_config, build_model
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.trainer_pt_utils import LabelSmoother

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskConfig,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
    register_head,
)
from mtl_nlp.modeling.head_types_multitask import HEADS
from mtl_nlp.modeling.heads_multitask import PlainHead, TaskHead, pool, stock_class_problem, stock_config

POS = TokenClassification(name="pos", labels=["a", "b", "c"])
TOPIC = TextClassification(name="topic", labels=["a", "b", "c"])
TAGS = MultiLabelClassification(name="tags", labels=["a", "b", "c"])
SCORE = Regression(name="score")
WITHOUT_STOCK_CLASSES = "splinter"


def inputs():
    """Return three rows, the last two of which are padded."""
    torch.manual_seed(1)
    attention_mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7])
    return {"input_ids": torch.randint(3, 500, (3, 9)) * attention_mask, "attention_mask": attention_mask}


def labels_for(task):
    if task is POS:
        labels = torch.randint(0, 3, (3, 9))
        return labels.masked_fill((torch.rand(3, 9) < 0.4) | (inputs()["attention_mask"] == 0), -100)
    return {"topic": torch.tensor([2, 0, 1]), "tags": torch.eye(3), "score": torch.tensor([0.5, -1.0, 2.0])}[task.name]


def stock_model(model, task):
    """Build the stock class with the weights of a multitask model."""
    config = model.config.text_config.__class__.from_dict(model.config.text_config.to_dict())
    config.num_labels, config.problem_type = task.num_labels, task.kind.problem_type
    auto_class = AutoModelForTokenClassification if task.kind.level == "token" else AutoModelForSequenceClassification
    stock = auto_class.from_config(config).eval()
    of_head = stock.load_state_dict(model.heads[0].stock.state_dict(), strict=False)
    of_encoder = stock.base_model.load_state_dict(model.encoder.state_dict(), strict=False)
    assert of_head.unexpected_keys == of_encoder.unexpected_keys == []
    assert all(key.startswith(stock.base_model_prefix) for key in of_head.missing_keys)
    assert all(key.startswith("pooler") for key in of_encoder.missing_keys)
    return stock


CASES = [(family, task) for family in FAMILIES for task in (POS, TOPIC)] + [("bert", TAGS), ("bert", SCORE)]


@pytest.mark.parametrize(("family", "task"), CASES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_one_task_alone_equals_the_stock_class(family, task):
    model = build_model([task], family)
    stock, labels = stock_model(model, task), labels_for(task)
    ours = model(**inputs(), rows={task.name: torch.arange(3)}, labels={task.name: labels})
    theirs = stock(**inputs(), labels=labels)
    assert torch.equal(ours.logits[task.name], theirs.logits)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=0, atol=1e-6)

    ours.loss.backward()
    theirs.loss.backward()
    stock_parameters = dict(stock.named_parameters())
    prefix = stock.base_model_prefix
    own_parameters = {f"{prefix}.{name}": p for name, p in model.encoder.named_parameters()}
    own_parameters |= dict(model.heads[0].stock.named_parameters())
    assert own_parameters.keys() == stock_parameters.keys()
    for name, parameter in own_parameters.items():
        expected = stock_parameters[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_mean_pooling_reads_the_mean_of_the_sub_words(family):
    task = TextClassification(name="topic", labels=["a", "b", "c"], pooling="mean")
    model = build_model([task], family)
    mask = inputs()["attention_mask"]
    hidden = model.encoder(**inputs()).last_hidden_state
    for row in range(3):
        mean = hidden[row, mask[row] == 1].mean(0)
        expected = model.heads[0].stock(inputs_embeds=mean[None, None], attention_mask=torch.ones(1, 1)).logits[0]
        torch.testing.assert_close(model(**inputs()).logits["topic"][row], expected, rtol=0, atol=1e-6)


def test_mean_pooling_does_not_depend_on_the_side_of_the_padding():
    task = TextClassification(name="topic", labels=["a", "b", "c"], pooling="mean")
    (head,) = build_model([task], "modernbert", classifier_pooling="mean").heads
    hidden, mask = torch.randn(3, 9, 32), inputs()["attention_mask"]
    torch.testing.assert_close(head(hidden, mask), head(hidden.flip(1), mask.flip(1)))


@pytest.mark.parametrize("task", [POS, TOPIC], ids=["token", "sequence"])
def test_family_without_a_stock_class_gets_a_plain_head(task):
    model = build_model([task], WITHOUT_STOCK_CLASSES)
    (head,) = model.heads
    assert not head.has_stock_class
    assert head.encoder_stand_in is None
    hidden = model.encoder(**inputs()).last_hidden_state
    expected = head.plain.classifier(hidden if task is POS else hidden[:, 0])
    assert torch.equal(model(**inputs()).logits[task.name], expected)


@pytest.mark.parametrize(("level", "shape"), [("token", (2, 5, 3)), ("sequence", (2, 3))])
def test_logits_of_a_plain_head_have_the_shape_of_its_level(level, shape):
    config = build_config("bert", num_labels=3)
    assert PlainHead(config, level)(torch.zeros(2, 5, 32), torch.ones(2, 5)).shape == shape


@pytest.mark.parametrize("family", FAMILIES)
def test_head_does_not_contain_the_encoder(family):
    head = TaskHead(TOPIC, build_config(family))
    words = ("embed", "encoder", "attention", "layer.0", "layers.0", "albert_layer")
    assert not [name for name, _ in head.named_parameters() if any(word in name for word in words)]


def test_configuration_of_the_encoder_is_not_changed():
    config = build_config("bert")
    before = config.to_dict()
    TaskHead(SCORE, config)
    assert config.to_dict() == before


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (POS, torch.zeros(0, 9, dtype=torch.long)),
        (TOPIC, torch.zeros(0, dtype=torch.long)),
        (TAGS, torch.zeros(0, 3)),
        (SCORE, torch.zeros(0)),
    ],
    ids=lambda value: "" if isinstance(value, torch.Tensor) else value.name,
)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "modernbert", WITHOUT_STOCK_CLASSES])
def test_head_without_rows_gives_a_zero_loss_with_zero_gradients(family, task, labels):
    (head,) = build_model([task], family).heads
    loss = head.loss_sum(head(torch.zeros(0, 9, 32), torch.zeros(0, 9, dtype=torch.long)), labels)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters() if p.requires_grad)


@pytest.mark.parametrize("task", [POS, TOPIC], ids=lambda task: task.name)
def test_loss_of_soft_targets_is_the_mean_over_labelled_units(task):
    model, labels = build_model([task]), labels_for(task)
    soft = torch.nn.functional.one_hot(labels.clamp(min=0), 3) * labels.ne(-100)[..., None].float()
    hard, same = (model(**inputs(), labels={task.name: given}).loss for given in (labels, soft))
    torch.testing.assert_close(same, hard, rtol=0, atol=1e-6)


def test_label_smoothing_equals_trainer_in_training_and_is_off_in_evaluation():
    head = build_model([POS]).heads[0]
    head.label_smoothing = 0.1
    torch.manual_seed(2)
    logits, labels = torch.randn(3, 9, 3), labels_for(POS)
    smoothed = LabelSmoother(epsilon=0.1)({"logits": logits}, labels)
    assert torch.allclose(head.train().loss_sum(logits, labels) / POS.kind.count_units(labels), smoothed)
    plain = LabelSmoother(epsilon=0.0)({"logits": logits}, labels)
    assert torch.allclose(head.eval().loss_sum(logits, labels) / POS.kind.count_units(labels), plain)


@pytest.mark.parametrize("task", [POS, TOPIC, TAGS], ids=lambda task: task.name)
def test_stock_configuration_has_the_labels_in_order_and_the_problem_type(task):
    encoder = build_config("bert", num_labels=7)
    config = stock_config(task, encoder)
    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}
    assert (config.num_labels, config.problem_type) == (3, task.kind.problem_type)
    assert encoder.num_labels == 7


def test_stock_configuration_of_a_regression_has_one_output_named_after_the_task():
    config = stock_config(SCORE, build_config("bert"))
    assert (config.id2label, config.problem_type) == ({0: "score"}, "regression")


@pytest.mark.parametrize(
    ("family", "pooling", "read"),
    [("modernbert", "mean", "mean"), ("modernbert", "cls", "cls"), ("bert", "mean", None)],
)
def test_stock_configuration_sets_the_pooling_if_the_family_supports_it(family, pooling, read):
    config = stock_config(TextClassification(name="t", labels=["a"], pooling=pooling), build_config(family))
    assert config.to_dict().get("classifier_pooling") == read


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", [POS, TOPIC, TAGS, SCORE], ids=lambda task: task.name)
def test_stock_class_equals_the_head(family, task):
    assert stock_class_problem(task, build_config(family)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_class_without_mean_pooling_is_reported(family):
    mean = "no {} class of transformers supports mean pooling (`pooling: mean`)"
    expected = None if family == "modernbert" else mean.format(family)
    assert stock_class_problem(Regression(name="t", pooling="mean"), build_config(family)) == expected


def test_family_without_stock_classes_is_reported():
    config = build_config(WITHOUT_STOCK_CLASSES)
    assert stock_class_problem(POS, config) == "transformers has no splinter class for token-classification"
    assert stock_class_problem(SCORE, config) == "transformers has no splinter class for regression"


# Heads of a task's option `head`


class AttentionPooling(nn.Module):
    """A head that weights the sub-words of a text by a learned attention."""

    def __init__(self, config, level, size=8):
        super().__init__()
        assert level == "sequence"
        self.score = nn.Sequential(nn.Linear(config.hidden_size, size), nn.Tanh(), nn.Linear(size, 1))
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states, attention_mask):
        scores = self.score(hidden_states).squeeze(-1).masked_fill(attention_mask == 0, -1e4)
        return self.output((scores.softmax(-1)[..., None] * hidden_states).sum(1))


class WrongShape(nn.Module):
    def __init__(self, config, level):
        super().__init__()

    def forward(self, hidden_states, attention_mask):
        return hidden_states


@pytest.fixture
def own_heads(monkeypatch):
    for name, head in {"attention": AttentionPooling, "wrong": WrongShape}.items():
        monkeypatch.setitem(HEADS, name, head)  # removes the head after the test
        assert register_head(name)(head) is head
    return HEADS


DEEP = {"hidden_layers": 2, "dropout": 0.25}


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_layers_work_at_both_levels_of_every_family(family):
    tasks = [dataclasses.replace(task, head=DEEP) for task in (POS, TOPIC)]
    model = build_model(tasks, family)
    logits = model(**inputs()).logits
    assert (logits["pos"].shape, logits["topic"].shape) == ((3, 9, 3), (3, 3))
    for head, task in zip(model.heads, tasks, strict=True):
        linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
        assert [layer.out_features for layer in linear] == [32, 32, 3]
        assert all(0.005 < layer.weight.std() < 0.05 and not layer.bias.any() for layer in linear)
        assert {module.p for module in head.modules() if isinstance(module, nn.Dropout)} == {0.25}
        assert set(head.new_parameters()) == set(head.parameters())
        assert stock_class_problem(task, model.config.text_config).startswith("its head is not that of a transformers")


def test_own_heads_survive_a_save_and_are_never_imported(own_heads, tmp_path):
    task = dataclasses.replace(TOPIC, head={"type": "attention", "size": 4})
    model = build_model([POS, task])
    model.add_task(dataclasses.replace(task, name="again"))
    assert model.heads[1].own.score[0].bias.any()  # the head keeps its own initialisation
    model.save_pretrained(tmp_path)
    loaded = MultitaskModel.from_pretrained(tmp_path).eval()
    assert [type(head.own) for head in list(loaded.heads)[1:]] == [AttentionPooling] * 2
    for name, logits in model(**inputs()).logits.items():
        assert torch.equal(loaded(**inputs()).logits[name], logits)
    labelled = {"rows": {"topic": torch.arange(3)}, "labels": {"topic": torch.zeros(3).long()}}
    loaded(**inputs(), **labelled, tasks=["topic"]).loss.backward()
    assert all(parameter.grad is not None for parameter in loaded.heads[1].new_parameters())
    del own_heads["attention"]
    with pytest.raises(ValueError, match=rf"no head 'attention' is registered\. Import the module '{__name__}' first"):
        MultitaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "t5", "xlnet"])
def test_own_heads_read_all_sub_words_of_every_family(own_heads, family):
    task = dataclasses.replace(TOPIC, head="attention", pooling=None)
    model, batch = build_family(family, [task]), a_family_batch(family)
    (head,), mask = model.heads, batch["attention_mask"]
    hidden = torch.randn(3, 9, 32)
    assert torch.equal(head(hidden, mask), head.own(hidden, mask))
    mean = build_family(family, [dataclasses.replace(task, pooling="mean")]).heads[0]
    expected = mean.own(pool(hidden, mask, "mean")[:, None], torch.ones(3, 1))
    assert torch.equal(mean(hidden, mask), expected)


def test_logits_of_a_wrong_shape_are_refused_in_one_line(own_heads):
    model = build_model([dataclasses.replace(TOPIC, head="wrong")])
    message = r"^The head 'wrong' should return logits of the shape \(rows, 3\)\. Found \(3, 9, 32\)\.$"
    with pytest.raises(ValueError, match=message):
        model(**inputs())


def test_word_heads_of_t5_start_near_chance_and_loaded_ones_stay(tmp_path):
    """The stock class of T5 starts its head with a deviation of 1."""
    model = MultitaskModel(MultitaskConfig(text_config=build_family_config("t5"), tasks=[POS]))
    model.add_task(dataclasses.replace(POS, name="more"))
    for head in model.heads:
        assert 0.01 < head.stock.classifier.weight.std().item() < 0.04
    with torch.no_grad():
        model.heads[0].stock.classifier.weight.fill_(2.0)
    model.save_pretrained(tmp_path)
    loaded = MultitaskModel.from_pretrained(tmp_path)
    assert (loaded.heads[0].stock.classifier.weight == 2.0).all()
    assert not build_model([POS]).heads[0].starts_large
