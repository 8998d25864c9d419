"""The folder of a run: the check that a run may use the folder, its lock, and the replacement of its model."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.model_card import is_edited
from mtl_nlp.hub.repository import WEIGHTS
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.run_folder import (
    CARD_NAME,
    CONFLICT_NAME,
    INSPECTION_NAME,
    LOCK_NAME,
    PREDICTIONS_NAME,
    REPORT_NAME,
    RESULTS_NAME,
    SAVED_NAME,
    TRAINING_LOG_NAME,
    checkpoint_folders,
    step_of,
)

_NOT_IN_EVERY_MODEL = (
    *WEIGHTS,
    "tokenizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Files of a model that would be read with the files of a later model, if the later model has no such files."""


def check_output_folder(folder: Path, encoder: str, *, resume: bool, overwrite: bool) -> None:
    """Check that a run neither overwrites nor mixes its files with those of the user, the encoder or a different run.

    Args:
        folder: the run's `output_dir`.
        encoder: the Hub id or folder of the encoder.
        resume: whether the run continues the run in the folder.
        overwrite: whether the run replaces the run in the folder.

    Raises:
        RecipeError: if the folder belongs to the encoder, holds files that no run wrote, or holds a run that is neither
            continued nor replaced.
    """
    if not folder.is_dir():  # a file of this name is reported when the folder is created
        return
    source = Path(encoder).resolve()
    if source == folder.resolve() or (overwrite and folder.resolve() in source.parents):
        raise RecipeError(
            f"output_dir: {folder} holds the encoder {encoder}, which the run would overwrite. Choose a different "
            f"output_dir."
        )
    if resume:
        return
    # Trainer writes this file last, also without the states from which a run resumes (`save_only_model`).
    checkpoints = [path for path in checkpoint_folders(folder) if (path / TRAINER_STATE_NAME).is_file()]
    # A run that was killed while it replaced a model leaves the new model in the folder `.saved`.
    has_model = _has_model(folder) or _has_model(folder / SAVED_NAME)
    last = [max(checkpoints, key=step_of).name] if checkpoints else []
    found = [*(["a trained model"] if has_model else []), *last]
    foreign = sorted(path.name for path in folder.iterdir() if path.name != LOCK_NAME)
    if foreign and not (found or (folder / LOCK_NAME).exists()):
        raise RecipeError(
            f"output_dir: {folder} holds files that do not belong to a run, such as {foreign[0]}. Choose a new or "
            f"empty folder."
        )
    if found and not overwrite:
        raise RecipeError(
            f"output_dir: {folder} holds the run of an earlier training ({', '.join(found)}). Continue that run with "
            f"--resume, replace it with --overwrite, or choose a different output_dir."
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Mark a folder as the folder of a run, and lock it against other runs until the context ends.

    The operating system releases the lock when the process ends, even if the process is killed. A process can lock the
    same folder again inside the context. If nothing was written, the mark is removed, and so is a new folder.

    Args:
        folder: the run's `output_dir`, which is created if it does not exist.

    Raises:
        RecipeError: if a different run uses the folder, or the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0, is_singleton=True)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RecipeError(
            f"output_dir: a different run is training in {folder}. Wait until that run ends, or choose a different "
            f"output_dir."
        ) from error
    except OSError as error:
        raise RecipeError(f"output_dir: {folder} cannot be written to: {one_line(error)}.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file, and the user may have removed the folder
            if lock.lock_counter == 1 and [path.name for path in folder.iterdir()] == [LOCK_NAME]:
                (folder / LOCK_NAME).unlink()
                if is_new:
                    folder.rmdir()
        lock.release()


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of an earlier run, so that no later run resumes from them."""
    for checkpoint in checkpoint_folders(folder):
        shutil.rmtree(checkpoint)


def replace_model(staged: Path, folder: Path, *, of_recipe: bool) -> None:
    """Replace the model in a folder by a model that is completely saved in a different folder.

    A model is loaded by its `config.json`. The old `config.json` is removed first and the new one comes last, so that
    at every moment the folder has the old model, the new model, or no model. If the process ends in between, the rest
    of the new model is in the folder `.saved`.

    Args:
        staged: a folder inside `folder`, which is removed.
        folder: the folder of the old model.
        of_recipe: whether a command wrote all files in `folder`. The results, the predictions, the training log, the
            measured conflict, the report, the inspection and the card of the old model are then removed, except a card
            that a person wrote or changed.
    """
    saved = folder / SAVED_NAME
    if saved.exists():
        shutil.rmtree(saved)
    staged.rename(saved)
    if of_recipe and _weights_of(folder) != _weights_of(saved):
        kept = {CARD_NAME} if is_edited(folder / CARD_NAME) else set()
        about = {RESULTS_NAME, PREDICTIONS_NAME, TRAINING_LOG_NAME, CONFLICT_NAME, REPORT_NAME, INSPECTION_NAME}
        for name in {*about, CARD_NAME} - kept:
            (folder / name).unlink(missing_ok=True)
    config, new = folder / CONFIG_NAME, {folder / path.name for path in saved.iterdir()}
    config.unlink(missing_ok=True)
    for path in {path for pattern in _NOT_IN_EVERY_MODEL for path in folder.glob(pattern)} - new:
        path.unlink()
    for path in [*(new - {config}), *(new & {config})]:
        if path.is_dir():  # DeepSpeed saves folders
            shutil.rmtree(path)
        (saved / path.name).replace(path)
    saved.rmdir()


def _weights_of(folder: Path) -> str | None:
    return _config_of(folder).get("weights_sha256")


def _has_model(folder: Path) -> bool:
    return _config_of(folder).get("model_type") == MultitaskConfig.model_type


def _config_of(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`; an empty dict if there is no such file, or the file is damaged."""
    try:
        content = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
