"""The command `report`."""

from __future__ import annotations

import shutil
from typing import get_args

import pytest
from command_line import fails
from comparison_folder import write_comparison, write_run

from mtl_nlp.cli.main import main
from mtl_nlp.cli.reporting import FORMATS
from mtl_nlp.report.tables import Format


@pytest.fixture
def comparison(tmp_path):
    return write_comparison(tmp_path / "compared", seeds=(1, 2), sides=("hard",), runs=False)


def test_a_page_is_written_and_its_path_printed(tmp_path, capsys):
    folder = write_run(tmp_path / "run", texts=5)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"The report is in {folder / 'report.html'}.\n"
    assert "The run run" in (folder / "report.html").read_text(encoding="utf-8")


def test_texts_can_be_left_out(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",), texts=20)
    assert main(["report", str(folder), "--no-examples"]) == 0
    assert "Lovelace" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("format", "shown"),
    [("text", "task       score"), ("markdown", "| task |"), ("latex", r"\toprule"), ("csv", "task,score,unit")],
)
def test_a_table_is_printed_instead_of_the_page(comparison, capsys, format, shown):
    assert main(["report", str(comparison), "--format", format]) == 0
    assert shown in capsys.readouterr().out
    assert not (comparison / "report.html").exists()
    assert get_args(Format) == FORMATS


def test_other_folders_are_refused_in_one_line(tmp_path, comparison, capsys):
    assert "There is no folder" in fails(capsys, "report", str(tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has neither comparison.json nor results.json" in fails(capsys, "report", str(empty))
    run = write_run(tmp_path / "run", texts=1)
    assert "has no comparison.json" in fails(capsys, "report", str(run), "--format", "csv")
    (comparison / "comparison.json").write_text("{")
    assert "is damaged" in fails(capsys, "report", str(comparison))
    assert "is damaged" in fails(capsys, "report", str(comparison), "--format", "text")
    shutil.rmtree(comparison)


@pytest.mark.parametrize(
    "name",
    [
        *("training_log.jsonl", "predictions.jsonl", "config.json", "results.json", "recipe.yaml"),
        *("inspection.json", "conflict.json"),
    ],
)
def test_damaged_files_of_a_run_are_refused_in_one_line(tmp_path, capsys, name):
    folder = write_run(tmp_path / "run", texts=1)
    (folder / name).write_text("{ damaged", encoding="utf-8")
    assert name in fails(capsys, "report", str(folder))
