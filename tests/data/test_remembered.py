from __future__ import annotations

import datasets
import pytest

from mtl_nlp.data.remembered import remembered
from mtl_nlp.errors import DataError


def test_unchanged_files_are_checked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path, calls = tmp_path / "a.csv", []

    def check() -> dict[str, list[str]]:
        calls.append(path.read_text())
        if "bad" in calls[-1]:
            raise DataError(f"{path}: bad")
        return {"notes": list(calls)}

    path.write_text("one")
    assert [remembered([str(path)], {"sep": ","}, check) for _ in range(2)] == [{"notes": ["one"]}] * 2
    remembered([str(path)], {"sep": ";"}, check)
    path.write_text("changed")
    remembered([str(path)], {"sep": ","}, check)
    assert calls == ["one", "one", "changed"]
    path.write_text("now bad")
    for _ in range(2):
        with pytest.raises(DataError):
            remembered([str(path)], {"sep": ","}, check)
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 3


def test_a_cache_that_is_damaged_or_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "a.csv"
    path.write_text("one")
    remembered([str(path)], {}, lambda: ["found"])
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text("{")
    assert remembered([str(path)], {}, lambda: ["again"]) == ["again"]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", path)
    assert remembered([str(path)], {}, lambda: ["there"]) == ["there"]
