"""The configuration: round trips, reading of words, invalid tasks and references to code."""

import pytest
from toys import build_config
from transformers import AutoConfig

from mtl_nlp import MultiLabelClassification, MultitaskConfig, Regression, TextClassification, TokenClassification

TASKS = [
    TextClassification(name="zebra", labels=["x", "y"]),
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER"], scheme="iob2"),
    Regression(name="a.b"),
    MultiLabelClassification(name="train", labels=["u", "v"], pooling="mean"),
]


def test_tasks_round_trip_in_order(tmp_path):
    MultitaskConfig(text_config=build_config("bert"), tasks=TASKS).save_pretrained(tmp_path)
    assert MultitaskConfig.from_pretrained(tmp_path).get_tasks() == TASKS


def test_auto_config_loads_the_configuration_with_that_of_the_encoder(tmp_path):
    config = MultitaskConfig(text_config=build_config("roberta"), tasks=TASKS, max_length=40, stride=7)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is MultitaskConfig
    assert type(loaded.text_config) is type(build_config("roberta"))
    assert loaded.text_config.hidden_size == 32
    assert (loaded.max_length, loaded.stride) == (40, 7)


def test_tasks_may_be_plain_data():
    config = MultitaskConfig(text_config=build_config("bert"), tasks=[task.to_dict() for task in TASKS])
    assert config.get_tasks() == TASKS


def test_duplicate_task_names_are_refused():
    with pytest.raises(ValueError, match=r"Task names must be unique. Found \['pos', 'pos'\]"):
        MultitaskConfig(text_config=build_config("bert"), tasks=[Regression(name="pos"), Regression(name="pos")])


@pytest.mark.parametrize(("tasks", "reads_words"), [(TASKS, True), (TASKS[:1], False), (TASKS[2:], False), ([], False)])
def test_texts_are_split_if_any_task_labels_words(tasks, reads_words):
    assert MultitaskConfig(text_config=build_config("bert"), tasks=tasks).reads_words is reads_words


def test_configuration_ignores_code_references_of_the_file(tmp_path):
    code = {
        "trust_remote_code": True,
        "attn_implementation": "eve/kernel",
        "_attn_implementation": "eve/kernel",
        "experts_implementation": "eve/kernel",
        "_experts_implementation": "eve/kernel",
    }
    config = MultitaskConfig(text_config=build_config("bert"), tasks=TASKS).to_dict()
    plain = MultitaskConfig.from_dict(config)
    remote = {"auto_map": {"AutoModel": "evil.Model"}, "custom_pipelines": {"x": {"impl": "evil.Pipeline"}}}
    encoder = {**config["text_config"], **code, **remote, "more": {"hidden_size": 8, **code, **remote}}
    loaded = MultitaskConfig.from_dict({**config, **code, "text_config": encoder})
    assert loaded.text_config.more == {"hidden_size": 8}
    del loaded.text_config.more
    assert loaded.to_dict() == plain.to_dict()
    assert loaded._attn_implementation is loaded.text_config._attn_implementation is None


def test_users_choose_the_attention_and_models_can_have_custom_code(tmp_path):
    MultitaskConfig(text_config=build_config("bert"), tasks=TASKS, auto_map={"AutoModel": "a.B"}).save_pretrained(
        tmp_path
    )
    loaded = MultitaskConfig.from_pretrained(tmp_path, attn_implementation="eager")
    assert loaded._attn_implementation == loaded.text_config._attn_implementation == "eager"
    assert loaded.auto_map == {"AutoModel": "a.B"}
