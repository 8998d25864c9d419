"""Symbolic links in the folders of models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_faults import error_of

from mtl_nlp.errors import ModelError
from mtl_nlp.hub.links import check_has_no_links
from mtl_nlp.run_folder import CARD_NAME, RESULTS_NAME, write_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the layout of the Hub's cache: a revision with a link to a blob."""
    snapshot = tmp_path / "models--ada--x" / "snapshots" / "abc"
    (snapshot / "more").mkdir(parents=True)
    (tmp_path / "models--ada--x" / "blobs").mkdir()
    (tmp_path / "models--ada--x" / "blobs" / "123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (snapshot / "more" / "a.json").symlink_to("../../../blobs/123")
    (tmp_path / "secret").write_text("qq77")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("qq77")
    return snapshot


def test_links_of_the_hub_cache_are_accepted(folder, tmp_path):
    check_has_no_links(folder)
    (tmp_path / "link").symlink_to(folder)
    check_has_no_links(tmp_path / "link")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "x").symlink_to(tmp_path / "secret")
    check_has_no_links(folder)  # checkpoints are not published with the model


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("README.md", "secret"),
        ("more/vocab.txt", "secret"),
        ("templates", "private"),
        ("README.md", "nowhere"),
        ("README.md", "models--ada--x/blobs"),
        ("README.md", "models--ada--x/snapshots/abc/more/b.json"),
    ],
)
def test_links_to_elsewhere_are_refused_by_name(folder, tmp_path, name, target):
    (folder / name).symlink_to(tmp_path / target)
    with pytest.raises(ModelError, match=rf"{name} is a symbolic link, whose target would be published\. Replace"):
        check_has_no_links(folder)


def test_links_through_the_blobs_are_refused(folder, tmp_path):
    blobs = folder.parents[1] / "blobs"
    (folder / "README.md").symlink_to("../../blobs/456")
    (blobs / "456").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="README"):
        check_has_no_links(folder)
    (blobs / "456").unlink()
    (blobs / "123").unlink()
    blobs.rmdir()
    blobs.symlink_to(tmp_path / "private")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("../../blobs/key")
    with pytest.raises(ModelError, match=r"README|config|a\.json"):
        check_has_no_links(folder)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / RESULTS_NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(ModelError, match=r"results\.json is a symbolic link, and nothing is written through links"):
        write_results(tmp_path / RESULTS_NAME, {})
    assert (tmp_path / "mine").read_text() == "mine"


def test_commands_refuse_a_folder_with_a_link_in_one_line(hub, online, pushed_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for file in pushed_run.iterdir():
        if file.is_file():
            os.link(file, run / file.name)
    (run / CARD_NAME).unlink()
    (tmp_path / "secret").write_text("qq77")
    (run / CARD_NAME).symlink_to(tmp_path / "secret")
    before = len(hub.received)
    for command in (
        ("push", str(run), "ada/linked"),
        ("demo", str(run), "--space", str(tmp_path / "space")),
    ):
        assert "README.md is a symbolic link" in error_of(online.command(*command))
    assert not any(b"qq77" in content for content in hub.received[before:])
    assert "ada/linked" not in hub.repositories
    assert not (tmp_path / "space").exists()
