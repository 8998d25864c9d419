"""Environments with the packages that some requirements name, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BARE_PYTHON = (sys.executable, "-S")
"""An interpreter without its installed packages; it finds only those in PYTHONPATH."""


def link_packages(requirements: Iterable[str], folder: Path) -> None:
    """Make a folder for PYTHONPATH with the installed packages that requirements name, and with all that these need.

    Raises:
        AssertionError: if an installed package does not have the version that a requirement names.
    """
    folder.mkdir(parents=True)
    for package in _required(requirements):
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            link = folder / name
            if not link.is_symlink():  # two packages may share a folder
                link.symlink_to(Path(str(package.locate_file(name))).resolve())


def _required(requirements: Iterable[str]) -> list[Distribution]:
    waiting = [Requirement(text) for text in requirements]
    seen: set[str] = set()
    packages: dict[str, Distribution] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        package = packages.setdefault(name, distribution(name))
        assert requirement.specifier.contains(package.version, prereleases=True), requirement
        if f"{name}{sorted(requirement.extras)}" in seen:
            continue
        seen.add(f"{name}{sorted(requirement.extras)}")
        for needed in map(Requirement, package.requires or ()):
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return list(packages.values())
