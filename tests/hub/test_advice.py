from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from hub_faults import AGAIN, ALL_FILES, FAILING, MESSAGE, error_of
from interpreter import Finished


@pytest.mark.parametrize("name", FAILING)
def test_failed_push_names_the_remedy_in_one_line_and_pushes_nothing(hub, failed, name):
    case, repo_id = FAILING[name], f"ada/{name}"
    assert f"{repo_id}: {case.message}" in error_of(failed[name])
    if repo_id in hub.repositories:
        assert list(hub.repositories[repo_id].branches) == ["main"]
        assert hub.commits(repo_id) == []
    if case.request:
        assert sum(case.request.format(repo_id) in request for request in hub.requests) == case.attempts


@pytest.mark.parametrize("name", ["upload-cut", "commit-refused", "no-branch-made"])
def test_failed_push_can_be_repeated(hub, push, failed, name):
    hub.heal(f"ada/{name}")
    assert push(f"ada/{name}").status == 0
    assert set(hub.files(f"ada/{name}")) == ALL_FILES
    assert hub.commits(f"ada/{name}") == [MESSAGE]


def test_push_waits_for_temporary_faults_and_slow_answers(hub, push):
    hub.fail("ada/patience", "upload", status=500, times=1)
    hub.fail("ada/patience", "preupload", cut=0, times=1)
    hub.fail("ada/patience", "commit", delay=1.5)
    finished = push("ada/patience")
    assert (finished.status, finished.stderr) == (0, "")
    assert hub.commits("ada/patience") == [MESSAGE]


@pytest.mark.parametrize("name", ["a/b/c", "sp ace", "ada/-x", "ada/x.git", "ada/" + "x" * 100])
def test_a_bad_name_is_refused(hub, push, name):
    before = len(hub.requests)
    assert f"{name}: this is not a valid repository name." in error_of(push(name))
    assert len(hub.requests) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "README.md",
            b"---\nlicense: [mit\n---\n",
            "ada/{}: the files cannot be pushed: Invalid metadata in README.md. - bad",
        ),
        (
            "README.md",
            "Für mich.".encode("latin-1"),
            "ada/{}: the files cannot be pushed: 'utf-8' codec can't decode byte",
        ),
        ("results.json", b'{"split": "te', "results.json is damaged (Unterminated string"),
        ("recipe.yaml", b"encoder: [", "recipe.yaml is not valid YAML"),
        ("tokenizer.json", b"{", "the tokenizer cannot be loaded: tokenizer.json is not valid JSON"),
    ],
    ids=["header", "letters", "results", "recipe", "tokenizer"],
)
def test_a_file_that_cannot_be_pushed_is_named(hub, online, pushed_run, tmp_path, request, name, content, message):
    shutil.copytree(pushed_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    (tmp_path / "run" / name).write_bytes(content)
    repo_id = f"bad-{request.node.callspec.id}"
    line = error_of(online.command("push", str(tmp_path / "run"), f"ada/{repo_id}"))
    assert message.format(repo_id) in line
    assert f"ada/{repo_id}" not in hub.repositories or hub.commits(f"ada/{repo_id}") == []


def test_failed_xet_upload_is_reported(hub, online, pushed_run):
    program = """
import sys
from huggingface_hub import constants
constants.HF_HUB_DISABLE_XET = False
from mtl_nlp.cli.main import main
sys.exit(main())
"""
    finished = online.run(program, "push", str(pushed_run), "ada/xet")
    assert any("/ada/xet/xet-write-token/" in request for request in hub.requests)
    assert "ada/xet: the connection to the Hub failed (Network error: " in error_of(finished)
    assert hub.commits("ada/xet") == []


def test_unreachable_hub_is_reported_by_a_new_interpreter(hub, pushed_run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened to
        environment = {**hub.environment(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        finished = subprocess.run(
            [sys.executable, "-m", "mtl_nlp", "push", str(pushed_run), "ada/nowhere"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
    line = error_of(Finished(finished.returncode, finished.stdout, finished.stderr))
    assert "ada/nowhere: the connection to the Hub failed ([Errno 111] Connection refused). " + AGAIN in line
