from __future__ import annotations

import json
import shutil

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from toys import TEXTS, build_config
from transformers import AutoModel

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.encoder import describe_code, load_encoder_parts
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare


def test_a_new_configuration_has_the_recipes_window_and_no_tasks(quick_recipe):
    tokenizer, config = load_encoder_parts(Recipe.from_dict({**quick_recipe, "max_length": 20, "stride": 3}))
    assert tokenizer.is_fast
    assert (config.max_length, config.stride, config.tasks, config.name_or_path) == (20, 3, [], "")
    assert config.text_config.model_type == "bert"


def test_window_defaults_to_the_limit_of_the_encoder(quick_recipe):
    _, config = load_encoder_parts(Recipe.from_dict(quick_recipe))
    assert (config.max_length, config.stride) == (48, None)


def test_trained_model_keeps_its_tasks_and_window(saved, quick_recipe):
    _, config = load_encoder_parts(Recipe.from_dict({**quick_recipe, "encoder": str(saved)}))
    assert [task["name"] for task in config.tasks] == ["pos", "ner", "topic"]
    assert (config.max_length, config.name_or_path) == (48, str(saved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "/nowhere/at/all"}, r"^encoder: /nowhere/at/all cannot be loaded: there is no such folder\.$"),
        ({"max_length": 49}, r"^max_length: the encoder reads at most 48 sub-words at once\. Found 49"),
        ({"max_length": 20, "stride": 18}, r"^stride: should be below 18, .* sub-words .* Found 18"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(quick_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_encoder_parts(Recipe.from_dict({**quick_recipe, **changes}))


CODE = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}


@pytest.mark.parametrize("trusts", [False, True])
@pytest.mark.parametrize(
    ("model_type", "file"), [("tiny-own", "config.json"), ("bert", "config.json"), ("bert", "tokenizer_config.json")]
)
def test_code_of_an_encoder_is_never_run_and_never_asked_for(
    quick_recipe, encoder_folder, tmp_path, monkeypatch, model_type, file, trusts
):
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder("bert"), folder)
    for name, code in (("config.json", CODE), ("tokenizer_config.json", {"AutoTokenizer": [None, "code.Own"]})):
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": code} if name == file else {}
        content |= {"model_type": model_type} if name == "config.json" else {}
        (folder / name).write_text(json.dumps(content))
    for name in ("configuration_tiny.py", "modeling_tiny.py", "code.py"):
        (folder / name).write_text("raise SystemExit('the code has run')")
    monkeypatch.setattr("builtins.input", lambda text: pytest.fail("the user was asked"))
    recipe = Recipe.from_dict(
        {**quick_recipe, "encoder": str(folder), "model_init_kwargs": {"trust_remote_code": trusts}}
    )
    if trusts or model_type != "bert":
        with pytest.raises(RecipeError, match=rf"{file} names code of its own \(.*\), which is never run\. If you"):
            load_encoder_parts(recipe)
    else:
        load_encoder_parts(recipe)
        notes = describe_code(recipe)
        assert [note.partition(" of")[0] for note in notes] == (["config.json"] if file == "config.json" else [])


def test_an_encoder_with_an_spm_model_alone_is_planned_as_deberta_v3_is(quick_recipe, tmp_path):
    folder = tmp_path / "deberta"
    torch.manual_seed(0)
    AutoModel.from_config(build_config("deberta-v2", vocab_size=120)).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "spm"),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=9,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    )
    (folder / "spm.vocab").unlink()
    recipe = Recipe.from_dict({**quick_recipe, "encoder": str(folder)})
    run = prepare(recipe)
    assert "reads at most 64 sub-words" in describe_plan(run, training_arguments(recipe))
    pieces = run.tokenizer.tokenize("The quick brown fox")
    assert "".join(pieces) == "▁The▁quick▁brown▁fox"
    assert run.tokenizer(["The"], is_split_into_words=True).word_ids()[1] == 0
