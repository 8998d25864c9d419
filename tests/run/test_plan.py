from __future__ import annotations

import re

import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import table
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare


def plan(data: dict) -> str:
    recipe = Recipe.from_dict(data)
    return describe_plan(prepare(recipe), training_arguments(recipe))


def test_plan_reports_tasks_rows_lengths_probabilities_and_steps(quick_recipe):
    lines = plan(quick_recipe).splitlines()
    assert lines[0] == (
        f"encoder: {quick_recipe['encoder']} (bert, 2 layers, hidden size 32), "
        f"reads at most 48 sub-words at once. Texts are split into words."
    )
    words = {line.split()[0]: line.split() for line in lines if line}
    assert words["pos"][:4] == ["pos", "token-classification", "17", "ADJ"]
    assert words["ner"][:6] == ["ner", "token-classification", "7", "B-LOC", "B-ORG", "B-PER"]
    assert words["topic"][1:3] == ["text-classification", "6"]
    assert words["topic"][-1] == "sample"
    name, train, validation, test, probability, rows, passes, tokens, median, longest = words["sample"]
    assert (name, train, probability, tokens) == ("sample", "504", "1.0", "100.0%")
    assert float(passes) == round(4 / -(-int(rows) // 8), 2)
    assert int(rows) > int(train)  # windows: the toy tokenizer makes long texts of sentences
    assert min(int(validation), int(test)) > 0
    assert 2 < int(median) < int(longest) <= 48
    steps = -(-int(rows) // 8)
    assert f"{steps} steps per epoch with 8 rows each, 4 steps in total." in lines


def test_plan_names_the_frozen_parts_with_their_sizes_and_refuses_layers_that_cannot_be_chosen(
    quick_recipe, encoder_folder
):
    quick_recipe["freeze"] = ["embeddings", "layers 0", "ner"]
    quick_recipe["training"]["layer_lr_decay"] = 0.9
    lines = plan(quick_recipe).splitlines()
    trained, total = (int(word.replace(",", "")) for word in lines[1].split()[:3:2])
    assert (
        re.sub(r"\d[\d,]* ", "N ", lines[2])
        == "Frozen: embeddings (N parameters), layers N (N parameters), ner (N parameters)."
    )
    frozen = [int(number.replace(",", "")) for number in re.findall(r"\(([\d,]+)", lines[2])]
    assert sum(frozen) == total - trained and min(frozen) > 0
    quick_recipe |= {"encoder": encoder_folder("albert"), "freeze": []}
    with pytest.raises(RecipeError, match=r"^training: `layer_lr_decay`: The layers of the albert encoder are shared"):
        plan(quick_recipe)


def test_steps_follow_from_epochs_and_accumulation(quick_recipe):
    quick_recipe["training"] |= {"max_steps": -1, "num_train_epochs": 2.5, "gradient_accumulation_steps": 4}
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare(recipe)
    steps = -(-len(run.mixture) // 32)
    assert f"{steps} steps per epoch with 32 rows each, {-(-steps * 5 // 2)} steps in total." in describe_plan(
        run, training_arguments(recipe)
    )


def test_probabilities_follow_the_temperature(quick_recipe, tmp_path):
    (tmp_path / "b.conll").write_text("# topic = travel\nfox\tNOUN\tO\n")
    other = {**quick_recipe["datasets"]["sample"], "data_files": {"train": str(tmp_path / "b.conll")}}
    quick_recipe["datasets"]["other"] = other
    quick_recipe["mixture"] = {"temperature": 1e9}
    rows = [line.split() for line in plan(quick_recipe).splitlines()]
    assert [row[4] for row in rows if row[:1] in (["sample"], ["other"])] == ["0.5", "0.5"]


def test_repaired_cut_and_unknown_labels_are_reported(quick_recipe, tmp_path):
    long = "fox\tNOUN\tI-PER\n" * 60
    (tmp_path / "train.conll").write_text("# topic = a\n" + long + "\n# topic = b\nAda\tPROPN\tB-PER\n")
    (tmp_path / "test.conll").write_text("# topic = c\nAda\tX\tO\n")
    quick_recipe["datasets"]["sample"]["data_files"] = {
        split: str(tmp_path / f"{split}.conll") for split in ("train", "test")
    }
    notes = [line for line in plan(quick_recipe).splitlines() if line.startswith("note: ")]
    assert notes == [
        notes[0],
        "note: sample/train: 1 illegal span tag; repaired as in seqeval",
        notes[2],
        "note: sample/test: 1 label of pos does not occur in training (X); every prediction there counts as wrong",
        "note: sample/test: 1 label of topic does not occur in training (c); every prediction there counts as wrong",
        "note: sample/test: 1 of 1 text is also in training; scores on test overstate the model",
    ]
    assert notes[0].startswith("note: no checkpoint is saved (training.save_strategy is no), so a run that is killed")
    assert notes[2].endswith("1 additional window of up to 48 sub-words, since long texts are split")


@pytest.mark.parametrize(
    ("training", "why"),
    [
        ({"save_strategy": "no"}, "no checkpoint is saved (training.save_strategy is no)"),
        ({"save_strategy": "steps"}, "(training.save_strategy is steps and training.save_steps is 500)"),
        ({"save_strategy": "steps", "save_steps": 20}, "with step 20 (training.save_strategy is steps and training.sa"),
        ({"save_strategy": "steps", "save_steps": 19}, None),
        ({"save_strategy": "steps", "save_steps": 0.5}, None),
        ({"save_strategy": "epoch"}, "comes at the end of training, with step 20 (training.save_strategy is epoch)"),
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 5}, None),
        ({"save_strategy": "best", "eval_strategy": "epoch"}, "with step 20 (training.save_strategy is best)"),
    ],
)
def test_a_run_that_saves_nothing_before_its_end_is_told_when_its_first_checkpoint_comes(quick_recipe, training, why):
    quick_recipe["training"] |= {"max_steps": 20, **training}
    text = plan(quick_recipe)
    assert "20 steps in total." in text
    assert ("so a run that is killed has to start again" in text) == (why is not None)
    assert why is None or why in text


def test_a_launch_with_cpu_that_starts_one_process_is_named(quick_recipe, monkeypatch):
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert "1 process, since accelerate launch --cpu starts only one, whatever --num_processes says" in plan(
        quick_recipe
    )


def test_table_aligns_numbers_to_the_right():
    assert table(("name", "rows"), [("a", 5), ("long", 100)]).splitlines() == [
        "name  rows",
        "----  ----",
        "a        5",
        "long   100",
    ]
    assert table(("a",), []) == "a\n-"
