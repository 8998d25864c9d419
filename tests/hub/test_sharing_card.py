"""The section of the model card on the comparison of a model."""

from __future__ import annotations

import shutil

import pytest
from comparison_folder import TASKS, change, write_comparison

from mtl_nlp.errors import DataError
from mtl_nlp.hub.comparison import read_comparison
from mtl_nlp.hub.markdown import escape
from mtl_nlp.hub.model_card import model_card
from mtl_nlp.hub.sharing_card import HOW, sharing_section
from mtl_nlp.hub.sharing_words import whole_statement


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path / "c", TASKS[:2], seeds=(1, 2), texts=1)


def test_the_card_of_a_joint_run_has_the_words_and_table_of_its_side(folder):
    card = model_card(folder / "runs" / "hard-1-0", "ada/model")
    section = card.split("## Did sharing help?\n\n")[1].split("\n## ")[0]
    comparison = read_comparison(folder / "comparison.json")
    assert section.startswith(escape(whole_statement(comparison, "hard")))
    assert "- ner lost 1.7 points (0.7 to 2.7) through sharing." in section
    assert "| ner | f1 | hard | 78.40 ± 0.14 |" in section
    assert "| adapters |" not in section.split("| cost |")[0]
    assert HOW in section
    assert "The single side ran with the rates of the joint recipe" in section


def test_a_single_task_run_and_a_model_without_a_comparison_have_no_section(folder, tmp_path):
    assert sharing_section(folder / "runs" / "single-1-0") == ""
    copied = shutil.copytree(folder / "runs" / "hard-1-0", tmp_path / "alone")
    assert sharing_section(copied) == ""
    assert "Did sharing help" not in model_card(copied, "ada/model")


def test_a_comparison_in_the_folder_of_the_model_shows_all_sides(folder, tmp_path):
    copied = shutil.copytree(folder / "runs" / "hard-1-0", tmp_path / "alone")
    shutil.copy(folder / "comparison.json", copied)
    section = sharing_section(copied)
    assert "**hard**: " in section
    assert "**adapters**: " in section


def test_names_are_escaped_and_local_paths_left_out(folder):
    change(folder, warnings=["see /home/ada/x.yaml and <script>"])
    section = sharing_section(folder / "runs" / "hard-1-0")
    assert "/home/ada" not in section
    assert "<script>" not in section


def test_a_damaged_comparison_is_named(folder):
    (folder / "comparison.json").write_text('{"sides": 1}')
    with pytest.raises(DataError, match=r"comparison\.json is damaged"):
        model_card(folder / "runs" / "hard-1-0", "ada/model")
