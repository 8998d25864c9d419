"""The files of a saved model: the weights and the hash of the weights in `config.json`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .configuration_multitask import MultitaskConfig
from .weights_multitask import check_finite

_HASH = "weights_sha256"
_UNFINISHED = "unfinished"


class SavedModel(PreTrainedModel):
    """A model that is loaded only from finite weights and a `config.json` that were saved together.

    `config.json` holds the SHA-256 of the files of weights. Loading from a folder checks the hash: without the check,
    old weights under new labels would answer wrongly without an error.

    Attributes:
        trained_heads: the names of the tasks whose heads were loaded with the model, and are not new.
    """

    config: MultitaskConfig
    trained_heads: frozenset[str] = frozenset()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model, see `PreTrainedModel.save_pretrained`.

        If the save is interrupted, the folder cannot be loaded. With `push_to_hub`, the files have no hash.

        Raises:
            NotFiniteError: if a weight is not finite. No file is written.
        """
        if is_main_process:
            buffers = {name for name, _ in self.named_buffers()}
            weights = self.state_dict() if state_dict is None else state_dict
            # Not by the names of the parameters, which differ from those in `state_dict` inside wrappers such as FSDP.
            check_finite((name, tensor) for name, tensor in weights.items() if name not in buffers)
        folder = Path(save_directory)
        index = folder / SAFE_WEIGHTS_INDEX_NAME
        if is_main_process and index.is_file():
            index.unlink()
        self.config.weights_sha256 = None if push_to_hub else _UNFINISHED
        try:
            super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, **kwargs)
        finally:
            self.config.weights_sha256 = None
        if not folder.is_dir() or not is_main_process:
            return
        if index.is_file():  # transformers would load the single file of an earlier save instead of the shards
            (folder / SAFE_WEIGHTS_NAME).unlink(missing_ok=True)
        if push_to_hub:
            return
        self.config.weights_sha256 = hash_weights(folder)
        config = folder / CONFIG_NAME
        for file in _weight_files(folder):
            file.chmod(config.stat().st_mode)  # safetensors does not follow the umask
        content = {**json.loads(config.read_text(encoding="utf-8")), _HASH: self.config.weights_sha256}
        replacement = config.with_name(f".{CONFIG_NAME}.new")
        replacement.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        replacement.replace(config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the model, see `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: if a folder has weights that were not saved with its `config.json`.
            NotFiniteError: if a weight is not finite.
        """
        if pretrained_model_name_or_path is not None:
            check_weights(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model: SavedModel = loaded[0] if kwargs.get("output_loading_info") else loaded
        check_finite(model.named_parameters())
        model.trained_heads = frozenset(task.name for task in model.config.get_tasks())
        return loaded


def hash_weights(folder: Path) -> str | None:
    """Return the SHA-256 over the files of weights in a folder, or None if there are no such files."""
    files = _weight_files(folder)
    if not files:
        return None
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def check_weights(folder: Path) -> None:
    """Check that the weights in a folder were saved with the folder's `config.json`.

    The check passes if `config.json` has no hash, as in folders from earlier releases, or if a file is missing.

    Raises:
        ValueError: if the hash is different, or the save was interrupted.
    """
    config = folder / CONFIG_NAME
    content = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
    expected = content.get(_HASH) if isinstance(content, dict) else None
    if expected is None:
        return
    if expected == _UNFINISHED:
        raise ValueError(f"The save of the model in {folder} was interrupted. Save or train the model again.")
    found = hash_weights(folder)
    if found != expected and (found is not None or any(folder.glob("pytorch_model*"))):
        raise ValueError(
            f"The weights in {folder} are damaged or do not belong to its {CONFIG_NAME}: their SHA-256 is different "
            f"from `{_HASH}`. Copy or save the model again. If you changed the weights on purpose, remove `{_HASH}` "
            f"from {CONFIG_NAME}."
        )


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))
