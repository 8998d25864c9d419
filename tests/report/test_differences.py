"""The section on where the sides differ."""

from __future__ import annotations

import json
import shutil

import pytest
from comparison_folder import write_comparison

from mtl_nlp.report.blocks import Examples, Fold, Plots, Table, Text
from mtl_nlp.report.differences import Limits, differences_section
from mtl_nlp.report.material import read_material

ALL = Limits(24, 5)


def blocks_of(folder, task, limits=ALL):
    (fold,) = differences_section(read_material(folder), [task], limits).blocks[:1]
    assert isinstance(fold, Fold), fold
    return fold.blocks


def tables(blocks):
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def test_labels_lengths_and_seen_words_have_a_column_for_each_side(comparison):
    found = tables(blocks_of(comparison, "ner"))
    assert list(found) == ["Scores per label", "F1 by length of the text", "Accuracy by words seen in training"]
    assert found["Scores per label"].head == ["label", "in gold", "F1, single", "F1, hard", "F1, adapters"]
    assert {row[0] for row in found["Scores per label"].rows} == {"PER", "LOC"}


def test_calibration_and_confusions_are_shown_for_tasks_that_have_them(comparison):
    blocks = blocks_of(comparison, "genre")
    (plots,) = [block for block in blocks if isinstance(block, Plots)]
    assert "Expected calibration error: single" in plots.note
    (fold,) = [block for block in blocks if isinstance(block, Fold)]
    assert [table.head[0] for table in fold.blocks] == ["gold"] * 3
    assert all(0 <= shade <= 1 for table in fold.blocks for row in table.heat for shade in row)
    assert not [block for block in blocks_of(comparison, "$rating_{") if isinstance(block, Plots | Fold)]


def test_examples_have_gold_and_both_answers(comparison):
    found = [block for block in blocks_of(comparison, "genre") if isinstance(block, Examples)]
    assert found[0].title.startswith("Texts on which single is right and hard is wrong: ")
    (first, *_) = found[0].examples
    assert [name for name, _, _ in first.answers] == ["gold", "single", "hard"]
    assert [right for _, _, right in first.answers] == [True, True, False]
    assert first.answers[0][1] == first.answers[1][1] != first.answers[2][1]
    assert "hard was" in first.where
    numbers = [block for block in blocks_of(comparison, "$rating_{") if isinstance(block, Examples)]
    assert "is closer to the label than" in numbers[0].title
    assert not numbers[0].examples[0].marked
    words = [block for block in blocks_of(comparison, "ner") if isinstance(block, Examples)]
    assert "/B-" in words[0].examples[0].answers[0][1]


def test_sides_without_such_texts_say_so(comparison, tmp_path):
    folder = shutil.copytree(comparison, tmp_path / "c")
    answers = (folder / "runs" / "single-1-1" / "predictions.jsonl").read_bytes()
    for run in (folder / "runs").iterdir():
        (run / "predictions.jsonl").write_bytes(answers)
    texts = [block.text for block in blocks_of(folder, "genre") if isinstance(block, Text)]
    assert texts[0] == "There is no text on which only one of hard and single is right in most seeds."


def test_texts_can_be_left_out(comparison):
    section = differences_section(read_material(comparison), ["genre"], ALL._replace(texts=False))
    assert isinstance(section.blocks[0], Text)
    assert not [block for block in section.blocks[1].blocks if isinstance(block, Examples)]


def test_a_run_alone_shows_precision_and_recall(run):
    found = tables(blocks_of(run, "genre"))
    assert found["Scores per label"].head == ["label", "in gold", "precision", "recall", "F1"]
    assert not [block for block in blocks_of(run, "genre") if isinstance(block, Examples)]


def test_sides_with_different_texts_are_named(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",))
    path = folder / "runs" / "hard-1-0" / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    (text,) = blocks_of(folder, "ner")
    assert text.text.startswith("The answers of hard cannot be analysed: ")


@pytest.mark.parametrize("missing", ["hard-1-0", "single-1-0"])
def test_a_missing_run_leaves_its_task_out(tmp_path, missing):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",))
    shutil.rmtree(folder / "runs" / missing)
    (text,) = differences_section(read_material(folder), ["ner"], ALL).blocks
    assert text.text == "The runs have no predictions."


def test_two_megabytes_of_text_and_label_are_cut(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",))
    for name, answer in (("hard-1-0", "sport"), ("single-1-1", "news")):
        path = folder / "runs" / name / "predictions.jsonl"
        line = {"task": "genre", "dataset": "long", "split": "test", "row": 0, "text": "a b " * 500_000}
        line |= {"gold": "news", "prediction": answer, "score": 1.0}
        path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (found,) = [block for block in blocks_of(folder, "genre") if isinstance(block, Examples)]
    assert len(found.examples[0].text) <= 400
