"""The table of a comparison as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import html
import io
import shutil
import subprocess
from typing import get_args

import pytest
from comparison_folder import write_comparison

from mtl_nlp.hub.comparison import read_comparison
from mtl_nlp.report.tables import Format, comparison_table, latex_escape


@pytest.fixture(scope="module")
def content(comparison):
    return read_comparison(comparison / "comparison.json")


def test_a_terminal_shows_scores_words_delta_m_and_costs(content):
    text = comparison_table(content, "text")
    assert "ner        f1        hard      78.50 ± 0.20     80.20 ± 0.20     −1.70    −2.70 to −0.70      hurt" in text
    assert "all        Δm, %" in text
    assert "ms per 1,000 texts" in text


def test_markdown_escapes_names(content):
    lines = comparison_table(content, "markdown").splitlines()
    assert len({line.count("|") for line in lines[:10]}) == 1
    assert "| &#36;rating&#95;{ | pearson |" in lines[6]
    assert html.unescape(lines[6]).startswith("| $rating_{ |")


def test_latex_escapes_names_and_uses_booktabs(content):
    text = comparison_table(content, "latex")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"\$rating\_\{ & pearson & hard & 0.8030 $\pm$ 0.0020" in text
    assert latex_escape("\\a&b %$#_{}~^\n<x>") == (
        r"\textbackslash{}a\&b \%\$\#\_\{\}\textasciitilde{}\textasciicircum{} \textless{}x\textgreater{}"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is missing.")
def test_latex_compiles(content, tmp_path):
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    text = f"{head}{comparison_table(content, 'latex')}\\end{{document}}"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_csv_has_plain_numbers_in_the_unit_of_the_table(content):
    rows = list(csv.DictReader(io.StringIO(comparison_table(content, "csv"))))
    first = rows[0]
    assert (first["task"], first["unit"], first["side"], first["reference"]) == ("ner", "percent", "hard", "single")
    assert (first["mean"], first["sd"], first["delta"], first["low"], first["word"]) == (
        *("78.50", "0.20", "-1.70", "-2.70"),
        "hurt",
    )
    assert any(row["score"] == "delta_m" and row["delta"] == "-0.40" for row in rows)
    assert any(row["score"] == "bytes" and row["side"] == "hard" and row["mean"] == "440000000" for row in rows)
    assert None not in {key for row in rows for key in row}


@pytest.mark.parametrize("format", get_args(Format))
def test_one_seed_and_no_cost_give_a_table(tmp_path, format):
    folder = write_comparison(tmp_path / "c", seeds=(1,), cost=False, runs=False)
    text = comparison_table(read_comparison(folder / "comparison.json"), format)
    assert "ner" in text
    assert "nan" not in text.lower()
    assert "None" not in text
