"""Pushes of a Trainer to the Hub, one commit per push and without secrets."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import CONFIG_NAME, PushInProgress, logging

from mtl_nlp.errors import RunError
from mtl_nlp.hub.advice import hub_errors
from mtl_nlp.hub.model_card import write_model_card
from mtl_nlp.hub.repository import push_files, repository_files, shared_bytes
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.modeling.weights_multitask import NotFiniteError
from mtl_nlp.run_folder import RECIPE_NAME, STAGED_NAME, shared_recipe
from mtl_nlp.training.folder import replace_model

logger = logging.get_logger(__name__)

_BACKGROUND = HfApi()
"""The client for pushes in the background. Its jobs run one after another, so commits keep their order."""


class HubTrainer(Trainer):
    """A Trainer that pushes the files from `repository_files`, and neither saves nor pushes its training arguments.

    Attributes:
        recipe: the text of the recipe; empty without a recipe.
    """

    recipe: str
    push_in_progress: PushInProgress | None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, its tokenizer and the recipe, by default into `output_dir` of the arguments.

        An existing model in the folder is replaced only after the new model is completely saved.

        Raises:
            RunError: if a weight is not finite. No file is written.
        """
        folder = Path(output_dir or self.args.output_dir)
        staged = folder / STAGED_NAME
        if self.args.should_save and staged.exists():  # from a save that was interrupted
            shutil.rmtree(staged)
        with contextlib.ExitStack() as at_end:
            if self.args.should_save:
                at_end.callback(shutil.rmtree, staged, ignore_errors=True)  # part of a model, if the disk is full
            try:
                super().save_model(str(staged), _internal_call=True)
            except NotFiniteError as error:
                raise RunError(f"{folder}: the model cannot be saved. {error}") from error
            if self.args.should_save and staged.exists():  # FSDP saves no model in the format of shards
                # This pickle is never read, and it contains `hub_token` in plain text and local paths.
                (staged / TRAINING_ARGS_NAME).unlink(missing_ok=True)
                if self.recipe:
                    (staged / RECIPE_NAME).write_text(self.recipe, encoding="utf-8")
                replace_model(staged, folder, of_recipe=bool(self.recipe))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository on the Hub.

        Raises:
            HubError: if the Hub refuses to create the repository or cannot be reached.
        """
        with hub_errors(self.args.hub_model_id or Path(self.args.output_dir).name):
            super().init_hf_repo(token, private)

    def create_model_card(self, **metadata: Any) -> None:
        """Write the model card into `output_dir`, unless the folder has a card that was written or edited by hand.

        Before the model is saved, the card describes the model of the trainer.

        Args:
            **metadata: Trainer's arguments for the header of the card, which are refused.

        Raises:
            ValueError: if there is metadata; the message names the remedy.
        """
        _check_metadata(metadata)
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir)
            write_model_card(folder, None if (folder / CONFIG_NAME).is_file() else self.model.config)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        with_code: bool = False,
        **metadata: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the model and push it with its tokenizer, card, recipe and results, as one commit.

        Args:
            commit_message: the commit's first line.
            blocking: whether to wait for the end of the push.
            token: by default `args.hub_token`, or the token of HF_TOKEN or of `hf auth login`.
            revision: a branch, created if it does not exist; by default `args.hub_revision`, or `main`.
            private: whether a new repository is private; `args.hub_private_repo` by default.
            with_code: whether to push the code of the model too, for users without mtl_nlp.
            **metadata: Trainer's arguments for the header of the card, which are refused.

        Returns:
            The commit, or its future; None in all processes except the first.

        Raises:
            HubError: if the Hub refuses the push or cannot be reached.
            ValueError: if there is metadata; the message names the remedy.
        """
        _check_metadata(metadata)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        if self.push_in_progress is not None:
            self.push_in_progress.wait_until_done()
        output = Path(self.args.output_dir)
        push = partial(
            push_files,
            repository_files(output, self.hub_model_id, with_code=with_code),
            self.hub_model_id,
            commit_message=commit_message,
            revision=revision or self.args.hub_revision,
            token=token,
        )
        return push() if blocking else _BACKGROUND.run_as_future(push)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background, according to `hub_strategy`."""
        self.accelerator.wait_for_everyone()  # every process writes its own files into the checkpoint
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        under_way = [] if self.push_in_progress is None else [j for j in self.push_in_progress.jobs if not j.done()]
        if under_way and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        files = repository_files(checkpoint, self.hub_model_id)
        if self.args.hub_strategy == HubStrategy.CHECKPOINT:
            files |= _files_to_resume(checkpoint, "last-checkpoint")
        elif self.args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            files |= _files_to_resume(checkpoint, checkpoint.name)
        # The files are copied, since `save_total_limit` may delete the checkpoint before the push.
        copies = tempfile.TemporaryDirectory()
        for number, (path, content) in enumerate(files.items()):
            if isinstance(content, Path):
                files[path] = Path(shutil.copy(content, f"{copies.name}/{number}"))
        job = _BACKGROUND.run_as_future(
            push_files,
            files,
            self.hub_model_id,
            commit_message=f"Training in progress, step {self.state.global_step}",
            revision=self.args.hub_revision,
            token=self.args.hub_token,
        )

        def finish(done: Future[Any]) -> None:
            copies.cleanup()
            if (error := done.exception()) is not None:
                logger.warning(f"{checkpoint.name} was not pushed: {one_line(error)} Training continues.")

        job.add_done_callback(finish)
        self.push_in_progress = PushInProgress([*under_way, job])


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if given := [name for name, value in metadata.items() if value is not None]:
        raise ValueError(
            f"The model card is made from the run, and takes no {', '.join(map(repr, given))}. Write such metadata "
            f"into the header of README.md after `create_model_card`: an edited card is kept by all saves and pushes."
        )


def _files_to_resume(checkpoint: Path, name: str) -> dict[str, Path | bytes]:
    """Return all files of a checkpoint in the folder `name` of the repository, without local paths.

    Args:
        checkpoint: the folder of the checkpoint, which `repository_files` has checked.
        name: the folder in the repository.
    """
    files: dict[str, Path | bytes] = {
        f"{name}/{path.relative_to(checkpoint)}": path for path in checkpoint.rglob("*") if path.is_file()
    }
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    if state["best_model_checkpoint"] is not None:
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
    files[f"{name}/{TRAINER_STATE_NAME}"] = json_text(state, indent=2).encode()
    for path in checkpoint.glob("*config.json"):
        files[f"{name}/{path.name}"] = shared_bytes(path)
    if (recipe := shared_recipe(checkpoint)) is not None:
        files[f"{name}/{RECIPE_NAME}"] = recipe.to_yaml().encode()
    return files
