from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import fails, write

from mtl_nlp.cli.main import main
from mtl_nlp.data.conll import read_conll

WITHOUT_EXTRAS = """
import sys
from mtl_nlp.cli.main import main

model, exported, texts, output = sys.argv[1:]
statuses = []
for missing, command in [
    ("gradio", ["demo", model]),
    ("onnx", ["export", model, "--format", "onnx", output]),
    ("onnxruntime", ["predict", exported, texts]),
    ("onnxscript", ["export", model, "--format", "onnx", output]),
]:
    sys.modules[missing] = None  # it is not found, and its import raises ModuleNotFoundError
    statuses.append(main(command))
    del sys.modules[missing]
print(statuses)
"""


def test_texts_are_answered_on_standard_output(trained, tmp_path, capsys):
    source = write(tmp_path / "a.txt", "Ada lives in Paris.\n\n👩‍👩‍👧 e\u0301 \u200b مرحبا\n" + "x" * 3000 + "\n")
    capsys.readouterr()
    assert main(["predict", str(trained / "run"), source]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert rows[1] == {"text": "", "answers": {"pos": [], "ner": [], "topic": rows[1]["answers"]["topic"]}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"tokens": ["Ada", "runs"]}\n'),
        ("a.conll", "Ada O\nruns O\n"),
        ("a.conllu", "1\tAda" + "\t_" * 8 + "\n2\truns" + "\t_" * 8 + "\n"),
    ],
)
def test_input_format_follows_the_file_extension(trained, tmp_path, name, content):
    source, target = write(tmp_path / name, content), tmp_path / "out.conll"
    assert main(["predict", str(trained / "run"), source, "--output", str(target), "--output-format", "conll"]) == 0
    (sentence,) = read_conll(target, ["tokens", "pos", "ner"])
    assert sentence["tokens"] == ["Ada", "runs"]


def test_standard_input_is_answered_line_by_line(trained):
    command = [sys.executable, "-m", "mtl_nlp", "predict", str(trained / "run"), "-", "--tasks", "topic"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("Ada lives in Paris.", "Hi"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            assert (row["text"], list(row["answers"])) == (text, ["topic"])
        output, error = process.communicate()
    assert (process.returncode, output, error) == (0, b"", b"2 texts answered.\n")


def test_a_table_on_standard_input_needs_its_format_and_a_note_says_so(trained):
    command = [sys.executable, "-m", "mtl_nlp", "predict", str(trained / "run"), "-", "--tasks", "topic"]
    table = "id,body\n1,Ada lives in Paris.\n2,\n"
    read_as_text = subprocess.run(command, input=table, capture_output=True, text=True, check=True)
    assert read_as_text.stderr == (
        "note: standard input was read as one text per line, and its first line looks like csv: 'id,body'. If it is, "
        "add --input-format csv\n3 texts answered.\n"
    )
    done = subprocess.run(
        [*command, "--input-format", "csv", "--text-column", "body"], input=table, capture_output=True, text=True
    )
    assert (done.returncode, json.loads(done.stdout)["body"]) == (2, "Ada lives in Paris.")
    assert done.stderr.splitlines() == [
        "no answer: standard input, line 3: no text in column 'body'.",
        "1 text answered.",
        "mtl-nlp: error: standard input: 1 of 2 texts have no answer.",
    ]


def test_bad_lines_are_counted_and_named_and_the_rest_is_answered(trained, tmp_path, capsys):
    lines = ["{" if number % 30 == 0 else json.dumps({"text": f"text {number}"}) for number in range(1, 1001)]
    source, output = write(tmp_path / "a.jsonl", "\n".join(lines)), tmp_path / "out.jsonl"
    capsys.readouterr()
    assert main(["predict", str(trained / "run"), source, "--tasks", "topic", "--output", str(output)]) == 2
    found = [json.loads(line)["text"] for line in output.read_text().splitlines()]
    assert found == [f"text {number}" for number in range(1, 1001) if number % 30]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"no answer: {source}, line 30: not JSON")
    assert len(errors) == 23
    assert errors[-3:] == [
        "no answer: …",
        "967 texts answered.",
        f"mtl-nlp: error: {source}: 33 of 1000 texts have no answer.",
    ]


def test_a_table_is_answered_with_the_tasks_that_are_asked_for(trained, tmp_path, capsys):
    source = write(tmp_path / "a.csv", 'id,body\n1,"Ada, in Paris"\n')
    predict = ["predict", str(trained / "run"), source, "--text-column", "body"]
    capsys.readouterr()
    assert main([*predict, "--tasks", "topic,ner", "--top-k", "all", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["id"], row["body"]) == ("1", "Ada, in Paris")
    assert row["answers"].keys() == {"topic", "ner"}
    assert len(row["answers"]["topic"]) == 6
    for more, message in [
        (["--tasks", "tpoic"], "--tasks tpoic: no such task. Did you mean 'topic'?"),
        (["--device", "nowhere"], "--device nowhere: cannot be used"),
        (["--top-k", "2", "--output-format", "conll"], "--top-k: columns hold one label per word"),
        (["--input-format", "text"], "is read as text, which has no named columns. Leave it out."),
        (["--sep", ";;"], "--sep ';;': should be one character between the cells"),
        (["--text-pair-column", "reply"], "a.csv: no column 'reply' (--text-pair-column)"),
    ]:
        assert message in fails(capsys, *predict, *more)
    assert "Convert the .parquet file" in fails(capsys, "predict", "m", write(tmp_path / "a.parquet", ""))


@pytest.fixture(scope="module")
def as_onnx(trained, tmp_path_factory) -> Path:
    """Export the trained model as ONNX with the command; return the folder."""
    folder = tmp_path_factory.mktemp("as-onnx")
    assert main(["export", str(trained / "run"), "--format", "onnx", str(folder)]) == 0
    return folder


def test_predict_gives_equal_answers_for_onnx_and_torch(trained, as_onnx, tmp_path):
    texts = write(tmp_path / "a.txt", "Ada lives in Paris.\n\n" + "The quick brown fox jumps. " * 30 + "\n")
    rows = []
    for model in (trained / "run", as_onnx):
        assert main(["predict", str(model), texts, "--output", str(tmp_path / "out.jsonl")]) == 0
        rows.append([json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()])
    assert len(rows[0]) == 3
    for one, other in zip(*rows, strict=True):
        for task, entries in one["answers"].items():
            scores = [[entry.pop("score") for entry in of] for of in (entries, other["answers"][task])]
            assert scores[0] == pytest.approx(scores[1], abs=2e-4)
        assert one == other


def test_a_damaged_onnx_file_is_refused_in_one_line(as_onnx, tmp_path, capsys):
    shutil.copytree(as_onnx, tmp_path / "copy")
    file = tmp_path / "copy" / "model.onnx"
    file.write_bytes(file.read_bytes()[:1000])
    line = fails(capsys, "predict", str(tmp_path / "copy"), write(tmp_path / "a.txt", "Ada\n"))
    assert "model.onnx is damaged or truncated" in line


def test_a_missing_extra_is_named_in_one_line(online, trained, as_onnx, tmp_path):
    texts = write(tmp_path / "a.txt", "Ada\n")
    arguments = [str(trained / "run"), str(as_onnx), texts, str(tmp_path / "out")]
    done = online.run(WITHOUT_EXTRAS, *arguments)
    assert done.stderr.splitlines() == [
        "mtl-nlp: error: gradio is not installed: pip install 'mtl_nlp[demo]'.",
        "mtl-nlp: error: onnx is not installed: pip install 'mtl_nlp[onnx]'.",
        "mtl-nlp: error: onnxruntime is not installed: pip install 'mtl_nlp[onnx]'.",
        "mtl-nlp: error: onnxscript is not installed: pip install 'mtl_nlp[onnx]'.",
    ]
    assert done.stdout == "[2, 2, 2, 2]\n"
