"""The measurements of `scripts/benchmark.py`, with the smallest sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from toys import REPOSITORY

SCRIPT = str(REPOSITORY / "scripts" / "benchmark.py")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"MTL_NLP_DATA", "MINILM"}}
    settings = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}
    return subprocess.run(command, cwd=REPOSITORY, env=kept | settings, capture_output=True, text=True, timeout=280)


def test_an_unknown_measurement_is_refused_with_the_names_of_all(tmp_path):
    done = run(sys.executable, SCRIPT, "stepps")
    assert done.returncode == 2
    assert "no measurement stepps. Measurements: steps, loader, pipeline" in done.stderr


@pytest.mark.slow
def test_the_quick_measurements_print_a_table_and_write_the_same_figures(tmp_path):
    file = tmp_path / "figures.json"
    names = ["steps", "loader", "pipeline", "scoring", "prepare", "growth", "planning", "packing", "joint", "tasknet"]
    done = run(sys.executable, SCRIPT, *names, "--tiny", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "the sample corpus takes the place" in done.stdout
    written = json.loads(file.read_text())
    assert {figure["measurement"] for figure in written["figures"]} == set(names)
    assert {"torch", "transformers", "mtl_nlp"} <= written["versions"].keys()
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(written["figures"])
    for row, figure in zip(rows, written["figures"], strict=True):
        assert row.startswith(f"| {figure['measurement']} | {figure['name']} |")
        if figure["value"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


@pytest.mark.slow
def test_the_figures_of_a_gpu_can_be_tried_on_a_cpu(tmp_path):
    done = run("bash", "scripts/benchmark_gpu", str(tmp_path), TINY="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "device_steps.json").read_text())["figures"]
    assert {"trainer / bare loop, toy, 4 x 8", "encoder, packed / padded, toy"} <= {of["name"] for of in found}
    assert "pipeline / bare loop" in (tmp_path / "device_answers.md").read_text()
