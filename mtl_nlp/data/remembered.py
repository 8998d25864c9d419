"""The findings of checks of data files, kept in the cache of `datasets`, so that unchanged files are checked once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets

from mtl_nlp.data.canonical import code_fingerprint

_FOLDER = "mtl_nlp_checks"


def remembered(files: Iterable[str], arguments: Any, check: Callable[[], Any]) -> Any:
    """Return the findings of a check, or those of an earlier check of the same files with the same arguments.

    A file is the same if its path, size and time of change are the same. An error of the check is not kept.

    Args:
        files: the files.
        arguments: all that the findings depend on beside the files, as plain data.
        check: a function that reads the files and returns its findings as data that JSON can hold.
    """
    try:
        states = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, files)]
    except OSError:  # the check says what is wrong with the file
        return check()
    key = json.dumps([code_fingerprint(), states, arguments], default=repr)
    path = Path(datasets.config.HF_DATASETS_CACHE) / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    findings = check()
    with contextlib.suppress(OSError, ValueError):  # a cache that cannot be written, or half of a surrogate pair
        _write(path, json.dumps(findings))
    return findings


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, since other processes may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
