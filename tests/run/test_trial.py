"""The trial of a model before training: which families work, which are refused, and in which words."""

from __future__ import annotations

import dataclasses
import random
import time
import warnings

import numpy as np
import pytest
import torch
from command_line import fails, write
from families import build_family_config
from torch import nn
from toys import build_config, build_tokenizer
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from mtl_nlp import MultitaskConfig, MultitaskModel, Recipe, TextClassification, TokenClassification, register_head
from mtl_nlp.cli.main import main
from mtl_nlp.errors import RecipeError
from mtl_nlp.modeling.head_types_multitask import HEADS
from mtl_nlp.modeling.heads_multitask import TaskHead
from mtl_nlp.run import trial as trial_module
from mtl_nlp.run.answers import LIBRARY_ERRORS
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.trial import trial_rows, try_model

POS = TokenClassification(name="pos", labels=["a", "b", "c"])
TOPIC = TextClassification(name="topic", labels=["a", "b"], pooling="cls")
TEXTS = TextClassification(name="texts", labels=["a", "b"])
MEAN = TextClassification(name="mean", labels=["a", "b"], pooling="mean")
RECIPE = {
    "encoder": "folder",
    "output_dir": "run",
    "tasks": {"topic": {"type": "text-classification"}},
    "datasets": {
        "d": {"path": "json", "data_files": "d.jsonl", "inputs": {"text": "text"}, "labels": {"topic": "topic"}}
    },
}


def trial(text_config, *tasks, **recipe) -> list[str]:
    config = MultitaskConfig(text_config=text_config, tasks=list(tasks or (POS, TOPIC, MEAN)), max_length=48)
    return try_model(Recipe.from_dict({**RECIPE, **recipe}), build_tokenizer("wordpiece"), config)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "deberta-v2", "modernbert"])
def test_families_whose_heads_equal_the_stock_classes_have_no_note(family):
    assert trial(build_config(family)) == []


@pytest.mark.parametrize("family", ["convbert", "fnet", "mobilebert"])
def test_families_that_read_padding_get_a_note(family):
    (note,) = trial(build_family_config(family))
    assert note.startswith(f"encoders of the family {family} read padding, so an answer depends on the longest")


def test_tasks_that_cannot_be_exported_get_a_note():
    different = "CanineForSequenceClassification computes other logits than the model"
    assert f"topic: cannot be exported to a stock class: {different}" in trial(build_family_config("canine"))


@pytest.mark.parametrize("family", ["vit", "reformer"])
def test_a_family_that_does_not_run_is_refused_in_one_line(family):
    config = AutoConfig.for_model(family, hidden_size=256) if family == "reformer" else build_family_config(family)
    message = rf"^encoder: folder: a .* of the family {family} does not run \(\w+: .*\)\. Choose an encoder of a"
    with pytest.raises(RecipeError, match=message) as caught:
        trial(config, POS)
    assert "\n" not in str(caught.value)


def test_a_head_that_reads_padding_is_refused_and_one_of_the_users_own_gets_a_note(monkeypatch):
    class ReadsPadding(nn.Module):
        def __init__(self, config, level):
            super().__init__()
            self.output = nn.Linear(config.hidden_size, config.num_labels)

        def forward(self, hidden_states, attention_mask):
            return self.output(hidden_states[:, -1])

    monkeypatch.setitem(HEADS, "reads-padding", ReadsPadding)
    register_head("reads-padding")(ReadsPadding)
    (note,) = trial(build_config("bert"), dataclasses.replace(TOPIC, head="reads-padding"))
    assert note == "topic: its head reads padding, so an answer depends on the longest text of its batch"
    forward = TaskHead.forward
    monkeypatch.setattr(TaskHead, "forward", lambda self, hidden, mask: forward(self, hidden[:, -1:], mask[:, :1]))
    with pytest.raises(
        RecipeError, match=r"^tasks\.topic: .* the family bert, the head reads padding\. Set tasks\.topic\.p"
    ):
        trial(build_config("bert"), TOPIC)


def test_a_head_that_does_not_see_the_text_is_refused(monkeypatch):
    forward = TaskHead.forward
    monkeypatch.setattr(TaskHead, "forward", lambda self, hidden, mask: forward(self, torch.ones_like(hidden), mask))
    with pytest.raises(
        RecipeError, match=r"^tasks\.topic: .* the family bert, the head .* only the start of the text\."
    ):
        trial(build_config("bert"), TOPIC)


def test_a_head_of_the_user_that_ignores_the_text_gets_a_note(monkeypatch):
    class ReadsFirst(nn.Module):
        def __init__(self, config, level):
            super().__init__()
            self.output = nn.Linear(config.hidden_size, config.num_labels)

        def forward(self, hidden_states, attention_mask):
            return self.output(hidden_states[:, 0])

    monkeypatch.setitem(HEADS, "reads-first", ReadsFirst)
    register_head("reads-first")(ReadsFirst)
    task = dataclasses.replace(TEXTS, head="reads-first")
    (note,) = trial(build_family_config("gpt2"), task)
    assert note == "texts: its head does not read the text: different words give the same answer"
    assert trial(build_config("bert"), task) == []


def test_errors_of_the_users_own_code_are_not_hidden(monkeypatch):
    class Fails(nn.Module):
        def __init__(self, config, level):
            super().__init__()

        def forward(self, hidden_states, attention_mask):
            raise RuntimeError("my own mistake")

    monkeypatch.setitem(HEADS, "fails", Fails)
    with pytest.raises(RuntimeError, match=r"^my own mistake$"):
        trial(build_config("bert"), dataclasses.replace(TOPIC, head="fails"))


def test_a_fault_of_this_package_is_named_as_one(monkeypatch):
    def batch(self, rows):
        return {}["positions"]

    monkeypatch.setattr(trial_module.MultitaskDataCollator, "__call__", batch)
    with pytest.raises(RecipeError, match=r"\(KeyError: 'positions'\)\. Choose an encoder of .*, such as roberta\.$"):
        trial(build_config("bert"), POS)  # the innermost code is that of this test
    monkeypatch.setitem(batch.__globals__, "__name__", "mtl_nlp.data.collator")
    with pytest.raises(
        RecipeError,
        match=r"'positions'\)\. This can be a fault of mtl_nlp: please report it; --debug shows .* roberta\.$",
    ):
        trial(build_config("bert"), POS)


def test_weights_that_no_task_trains_get_a_note_and_stop_a_distributed_run(monkeypatch):
    # The embedding of T5 has two names, and only one of them is read.
    assert not any("no task trains" in note for note in trial(build_family_config("t5"), POS))
    init = MultitaskModel.__init__

    def with_more(self, config):
        init(self, config)
        self.encoder.more = nn.Linear(2, 2)

    monkeypatch.setattr(MultitaskModel, "__init__", with_more)
    fact = "no task trains 2 weights of an encoder of the family bert, such as encoder.more.weight"
    assert fact in trial(build_config("bert"), POS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=rf"^encoder: folder: {fact}, and each .* Set training\.ddp_find_unused_p"):
        trial(build_config("bert"), POS)
    assert fact in trial(build_config("bert"), POS, training={"ddp_find_unused_parameters": True})


def test_an_encoder_that_is_too_large_for_a_trial_gets_a_note(monkeypatch):
    monkeypatch.setattr("mtl_nlp.run.trial._MOST_PARAMETERS", 1000)
    (note,) = trial(build_config("bert"))
    assert note.startswith("the encoder is too large for a trial")


def test_the_trial_does_not_disturb_random_numbers():
    def states() -> list[object]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]

    before = states()
    trial(build_config("bert"))
    with pytest.raises(RecipeError):
        trial(build_family_config("vit"), POS)
    assert states() == before


def test_adapters_and_short_windows_are_tried_too():
    assert trial(build_config("bert"), TOPIC, adapters={"r": 4, "target_modules": "all-linear"}) == []
    named = {"r": 4, "target_modules": ["encoder.layer.3.output.dense"]}  # needs more than two layers
    assert trial(build_config("bert", num_hidden_layers=4), TOPIC, adapters=named) == []
    config = MultitaskConfig(text_config=build_config("bert"), tasks=[POS, TOPIC], max_length=3)
    tokenizer = build_tokenizer("wordpiece")
    assert [len(row["input_ids"]) for row in trial_rows(tokenizer, config)] == [3, 3, 3]
    assert try_model(Recipe.from_dict(RECIPE), tokenizer, config) == []


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_rows_have_the_special_tokens_and_different_words(kind):
    tokenizer = build_tokenizer(kind)
    config = MultitaskConfig(text_config=build_config("bert"), tasks=[POS])
    long, short, other = (row["input_ids"] for row in trial_rows(tokenizer, config))
    assert (len(long), len(short), len(other)) == (14, 7, 14)
    assert all((row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for row in (long, short, other))
    assert short[1:-1] == long[1:6] and long[1] == other[1] and not set(long[2:-1]) & set(other[2:-1])
    assert not {*long[1:-1], *other[1:-1]} & {*tokenizer.all_special_ids}


@pytest.mark.slow
def test_the_trial_of_a_bert_of_the_usual_size_takes_a_moment():
    start = time.process_time()
    assert trial(AutoConfig.for_model("bert")) == []
    assert time.process_time() - start < 1.5


# On the command line


@pytest.fixture
def recipe_of(quick_recipe, encoder_folder, tmp_path):
    def build(config, **changes) -> str:
        folder = tmp_path / config.model_type
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
        build_tokenizer("wordpiece").save_pretrained(folder)
        return write(tmp_path / "recipe.yaml", {**quick_recipe, "encoder": str(folder), **changes})

    return build


def test_plan_and_train_refuse_a_family_that_does_not_run(recipe_of, tmp_path, capsys):
    recipe = recipe_of(build_family_config("vit"))
    for command in ("plan", "train"):
        assert "a multitask model with an encoder of the family vit does not run" in fails(capsys, command, recipe)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_notes_of_the_trial_are_in_the_plan(recipe_of, capsys):
    recipe = recipe_of(build_family_config("convbert"))
    assert main(["plan", recipe]) == 0
    assert "note: encoders of the family convbert read padding, so an answer depends on" in capsys.readouterr().out
    assert main(["plan", recipe, "--no-model"]) == 0
    assert "read padding" not in capsys.readouterr().out


def test_adapters_of_an_encoder_without_linear_layers_are_refused_in_one_line(recipe_of, capsys):
    for targets in ("all-linear", None, ["query"]):
        recipe = recipe_of(build_family_config("squeezebert"), adapters={"r": 4, "target_modules": targets})
        line = fails(capsys, "plan", recipe, "--no-model")
        assert (
            "adapters: a squeezebert encoder has no linear layers, which adapters change. Leave out `adapters`" in line
        )


def test_a_model_in_python_is_tried_too(quick_recipe, monkeypatch):
    run = prepare(Recipe.from_dict(quick_recipe))
    before = list(run.notes)
    run.build_model()
    assert run.notes == before
    tried = prepare(Recipe.from_dict(quick_recipe))
    monkeypatch.setattr("mtl_nlp.run.build.try_model", lambda *_: ["a note"])
    for _ in range(2):
        tried.try_model()
    assert tried.notes == [*before, "a note"]
    monkeypatch.undo()
    monkeypatch.setattr(TaskHead, "forward", lambda self, hidden, mask: hidden)
    with pytest.raises(RecipeError, match="a multitask model with an encoder of the family bert does not run"):
        prepare(Recipe.from_dict(quick_recipe)).build_model()


# Every family


LARGE = 20_000_000
"""The number of weights from which a family has other names for its sizes, so that its configuration is not tiny."""


def outcome(family: str) -> str:
    """Return `works`, `note`, `refused`, or the reason why there is no tiny configuration."""
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of sizes that are too small
            config = build_family_config(family)
            size = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
    except LIBRARY_ERRORS as error:
        return f"not built: {type(error).__name__}"
    if size > LARGE:
        return "not built: large"
    try:
        notes = trial(config, POS, TEXTS, MEAN)
    except RecipeError as error:
        assert config.model_type in str(error) and "\n" not in str(error) and len(str(error)) < 600
        return "refused"
    assert all("\n" not in note for note in notes)
    return "note" if notes else "works"


@pytest.mark.parametrize(
    "family",
    [
        "electra",
        "gpt2",
        "t5",
        "longformer",
        "xlnet",
        "funnel",
        "canine",
        "vit",
        "mamba",
        "big_bird",
        "luke",
        "squeezebert",
    ],
)
def test_a_family_works_or_is_refused_in_one_line(family):
    assert outcome(family) in {"works", "note", "refused"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_family_works_or_is_refused_in_one_line():
    found = {family: outcome(family) for family in MODEL_MAPPING_NAMES if family != "vits"}  # speaks, and takes 9 GB
    assert sum(each == "works" for each in found.values()) >= 100
    assert sum(not each.startswith("not built") for each in found.values()) >= 100
