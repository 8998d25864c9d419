from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import fails

from mtl_nlp.cli.main import main

SAMPLE_CORPUS = Path(__file__).parents[2] / "recipes" / "sample_corpus"


@pytest.fixture
def files(tmp_path) -> Path:
    """Write a table, pairs and words in columns; return their folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    table = [f"{n},my text number {n} is here,{('billing', 'technical')[n % 2]},{n % 5 + 1}" for n in range(30)]
    (folder / "tickets.csv").write_text("\n".join(["id,body,category,priority", *table]) + "\n")
    words = "-DOCSTART- -X- O\n\n" + "Peter NNP I-PER\nsaw VBD O\nthe DT O\nLondon NNP I-LOC\nbus NN O\n\n" * 8
    for split in ("train", "testa", "testb"):
        (folder / f"eng.{split}").write_text(words)
    for split in ("train", "dev", "test"):
        (folder / f"nli_{split}.jsonl").write_text(
            "".join(
                json.dumps({"premise": f"A man number {n} walks", "hypothesis": f"He {n} is out", "gold": "yn"[n % 2]})
                + "\n"
                for n in range(20)
            )
        )
    tree = "".join(
        f"# sent_id = {n}\n1\tDogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tbark{n}\tbark\tVERB\t_\t_\t0\troot\t_\t_\n\n"
        for n in range(20)
    )
    for split in ("train", "dev", "test"):
        (folder / f"en_x-ud-{split}.conllu").write_text(tree)
    return folder


def test_the_drafted_recipe_passes_its_plan(files, encoder_folder, tmp_path, capsys):
    output = tmp_path / "recipe.yaml"
    init = ["init", str(files), str(SAMPLE_CORPUS), "--output", str(output), "--encoder", encoder_folder("bert")]
    capsys.readouterr()
    assert main(init) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"The recipe is in {output}. Check its comments, then: mtl-nlp train {output}\n")
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for name in ("tickets", "eng", "nli", "en_x_ud", "sample_corpus"):
        assert name in lines
    assert "regression" in lines["priority"]
    before = output.read_bytes()
    assert f"--output {output}: exists already" in fails(capsys, *init)
    assert main([*init, "--overwrite", "--no-plan"]) == 0
    assert output.read_bytes() == before
    assert "encoder: " not in capsys.readouterr().out
    assert "There is no file /no/file" in fails(capsys, "init", "/no/file", "--output", str(tmp_path / "other.yaml"))


def test_the_schema_is_json(capsys):
    assert main(["schema", "--section", "tasks"]) == 0
    section = json.loads(capsys.readouterr().out)
    assert section["$defs"].keys() == {"task", "own_task"}
    types = [each["title"] for each in section["$defs"]["task"]["oneOf"]]
    assert "token-classification" in types
    assert {"$ref": "#/$defs/task"} in section["additionalProperties"]["anyOf"]
    assert "--section task: no such section. Did you mean 'tasks'?" in fails(capsys, "schema", "--section", "task")
