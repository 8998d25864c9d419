from __future__ import annotations

from datasets import Dataset

from mtl_nlp.data.loading import load_splits
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.tokenization import tokenize_datasets


def test_splits_are_tokenized_with_the_configurations_window(run):
    loaded = {"sample": load_splits("sample", run.recipe.datasets["sample"], run.tasks)}
    run.config.max_length, run.config.stride = 12, 2
    found = tokenize_datasets(run.recipe, run.tokenizer, run.config, loaded)
    assert list(found.splits) == ["train", "validation", "test"]
    assert found.streams == {}
    assert all(datasets["sample"].lengths.max() <= 12 for datasets in found.splits.values())
    assert any("additional windows of up to 12 sub-words" in note for note in found.notes)


def test_texts_are_split_at_the_encoder_limit_without_a_configured_window(run, tmp_path, quick_recipe):
    (tmp_path / "long.conll").write_text("# topic = email\n" + "fox\tNOUN\tO\n" * 100, encoding="utf-8")
    quick_recipe["datasets"]["sample"]["data_files"] = {"train": str(tmp_path / "long.conll")}
    recipe = Recipe.from_dict(quick_recipe)
    loaded = {"sample": load_splits("sample", recipe.datasets["sample"], run.tasks)}
    run.config.max_length = None
    found = tokenize_datasets(recipe, run.tokenizer, run.config, loaded)
    assert found.splits["train"]["sample"].lengths.max() == 48
    assert any("additional windows of up to 48 sub-words" in note for note in found.notes)


def test_a_streamed_training_split_is_not_among_the_splits(quick_recipe, run):
    quick_recipe["datasets"]["sample"] |= {"streaming": True, "buffer_size": 7}
    recipe = Recipe.from_dict(quick_recipe)
    loaded = {"sample": load_splits("sample", recipe.datasets["sample"], run.tasks)}
    found = tokenize_datasets(recipe, run.tokenizer, run.config, loaded)
    assert list(found.splits) == ["validation", "test"]
    assert (list(found.streams), found.streams["sample"].buffer_size) == (["sample"], 7)
    assert found.notes[0].startswith("sample/train: streamed, ")


def test_an_evaluation_split_without_labels_is_left_out_with_a_note(quick_recipe, run, tmp_path):
    columns = {"text": ["a", "b"], "x": [None, None]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "hidden.parquet")
    Dataset.from_dict({**columns, "x": [1.0, 2.0]}).to_parquet(tmp_path / "train.parquet")
    quick_recipe["tasks"] = {"x": {"type": "regression"}}
    files = {"train": str(tmp_path / "train.parquet"), "test": str(tmp_path / "hidden.parquet")}
    quick_recipe["datasets"] = {"d": {"path": "parquet", "data_files": files, "inputs": {"text": "text"}}}
    quick_recipe["datasets"]["d"]["labels"] = {"x": "x"}
    recipe = Recipe.from_dict(quick_recipe)
    tasks = {"x": recipe.task("x")}
    run.config.tasks = [tasks["x"].to_dict()]
    loaded = {"d": load_splits("d", recipe.datasets["d"], tasks)}
    found = tokenize_datasets(recipe, run.tokenizer, run.config, loaded)
    assert list(found.splits) == ["train"]
    assert found.notes == ["d/test: no row has a label; the split is not used"]
