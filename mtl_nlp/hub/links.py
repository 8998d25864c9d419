"""The refusal of symbolic links in a model's folder, whose targets would be published."""

from __future__ import annotations

import os
from pathlib import Path

from mtl_nlp.errors import ModelError
from mtl_nlp.run_folder import CHECKPOINT_PREFIX


def check_has_no_links(folder: Path) -> None:
    """Check that a model's folder has no symbolic links, except into the blobs of the same repository.

    The folder of a model may come from elsewhere, and a link may lead to any file. The Hub's cache consists of links:
    `models--OWNER--NAME/snapshots/REVISION/FILE` leads to `models--OWNER--NAME/blobs/HASH`. The folders of checkpoints
    inside the folder are not searched.

    Args:
        folder: the model's folder, or one of its checkpoints. The folder itself may be a link.

    Raises:
        ModelError: if a file or folder inside the folder is a link to elsewhere.
    """
    root = folder.resolve()
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else None
    for current, folders, files in os.walk(root):
        for path in (Path(current, name) for name in sorted([*folders, *files])):
            if path.is_symlink() and (blobs is None or path.resolve().parent != blobs):
                raise ModelError(
                    f"{folder / path.relative_to(root)} is a symbolic link, whose target would be published. Replace "
                    f"the link by a copy of the file, or delete it."
                )
        folders[:] = [name for name in folders if not name.startswith(CHECKPOINT_PREFIX)]
