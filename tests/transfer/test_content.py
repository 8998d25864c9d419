from __future__ import annotations

import shutil
import sys

from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.prepare import prepare
from mtl_nlp.transfer.content import content_key, digests_of, encoder_digest, versions


def test_a_digest_depends_on_the_values_alone(quick_recipe, tmp_path):
    first = digests_of(prepare(Recipe.from_dict(quick_recipe)))
    assert set(first["sample"]) == {
        f"{split}{task}" for split in ("train", "validation", "test") for task in ("", "/pos", "/ner", "/topic")
    }
    assert len(set(first["sample"].values())) == 12
    moved = tmp_path / "corpus"
    shutil.copytree("recipes/sample_corpus", moved)
    files = {split: str(moved / split / "*.conll") for split in ("train", "validation", "test")}
    quick_recipe["datasets"]["sample"]["data_files"] = files
    assert digests_of(prepare(Recipe.from_dict(quick_recipe))) == first


def test_a_local_encoder_is_known_by_its_files(quick_recipe, tmp_path):
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare(recipe)
    folder = tmp_path / "encoder"
    shutil.copytree(recipe.encoder, folder)
    copy = recipe.model_copy(update={"encoder": str(folder)})
    assert encoder_digest(copy, run) == encoder_digest(recipe, run)
    (folder / "notes.md").write_text("no part of the model")
    assert encoder_digest(copy, run) == encoder_digest(recipe, run)
    (folder / "config.json").write_text("{}")
    assert encoder_digest(copy, run) != encoder_digest(recipe, run)


def test_a_key_covers_values_data_encoder_and_seed(quick_recipe):
    def key(encoder: str = "x", **changes: object) -> str:
        return content_key(Recipe.from_dict({**quick_recipe, **changes}), {"sample": {"train": "a"}}, encoder)

    assert key() == key(output_dir="elsewhere") == key(card={"license": "mit"})
    training = {**quick_recipe["training"], "seed": 7}
    assert len({key(), key("y"), key(training=training), key(max_length=32)}) == 4


def test_a_key_covers_the_source_of_own_code_and_not_its_place(quick_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])

    def key(folder: str, text: str) -> str:
        sys.modules.pop("code_of_a_key", None)
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "code_of_a_key.py").write_text(text)
        recipe = Recipe.from_dict({**quick_recipe, "imports": ["code_of_a_key"]}, tmp_path / folder, allow_code=True)
        return content_key(recipe, {"sample": {"train": "a"}}, "x")

    assert key("a", "x = 1") == key("b", "x = 1")
    assert (
        len({key("a", "x = 1"), key("a", "x = 2 "), content_key(Recipe.from_dict(quick_recipe), {"sample": {}}, "x")})
        == 3
    )
    sys.modules.pop("code_of_a_key")


def test_a_key_covers_the_share_of_the_rows(quick_recipe):
    recipe = Recipe.from_dict(quick_recipe)
    assert len({content_key(recipe, {"sample": {"train": "a"}}, "x", share) for share in (1.0, 0.5, 0.25)}) == 3


def test_versions_are_those_of_the_libraries_that_change_a_model():
    assert {"mtl_nlp", "torch", "transformers", "peft"} <= versions().keys()
