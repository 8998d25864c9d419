from __future__ import annotations

import pytest

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.transfer.affinity_files import Affinity, check_folder, read_affinity


def test_a_damaged_file_is_refused(tmp_path):
    assert read_affinity(tmp_path) == {}
    for text, message in (("{", "is damaged"), ("[]", "expected an object"), ("{}", "`key` is missing")):
        (tmp_path / "affinity.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_affinity(tmp_path)


def test_a_folder_with_other_files_is_refused(tmp_path):
    for name in ("affinity.json", "affinity.html", "groups.yaml", "group-1.yaml", "recipe.yaml", ".lock"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(CommandError, match=r"such as config\.json"):
        check_folder(tmp_path)
    with pytest.raises(CommandError, match=r"is a file"):
        check_folder(tmp_path / "config.json")


def test_a_notebook_shows_the_effects(tmp_path):
    effect = {"value": 0.1, "low": 0.0, "high": 0.2, "word": "unclear"}
    found = Affinity(tmp_path, {"effects": {"a": {"b": effect}}, "groups": []})
    assert "unclear" in found._repr_html_()
    assert found.groups == []
