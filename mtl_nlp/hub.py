"""To the Hub: what of a run is pushed, as one commit, and what to do if that fails."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from transformers import AutoTokenizer
from transformers.utils import CONFIG_NAME

from mtl_nlp.checkpoints import RECIPE_NAME
from mtl_nlp.evaluation.results import RESULTS_NAME
from mtl_nlp.messages import one_line
from mtl_nlp.model_card import CARD_NAME, is_edited, model_card, shared_recipe

MODELING = Path(__file__).parent / "modeling"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")

_CODE = {
    "auto_map": {
        "AutoConfig": "configuration_multitask.MultitaskConfig",
        "AutoModel": "modeling_multitask.MultitaskModel",
    },
    # Another name than that of mtl_nlp's own pipeline: under one name transformers would ask those who have it for
    # `trust_remote_code`.
    "custom_pipelines": {
        "multitask-encoder": {"impl": "pipeline_multitask.MultitaskPipeline", "pt": ["AutoModel"], "type": "text"}
    },
}
_AGAIN = "A push is one commit, so nothing is half pushed: push again."
_LOG_IN = "Log in (hf auth login) or set HF_TOKEN to a token that may write."


class HubError(ValueError):
    """A push that the Hub refused or that did not reach it; the message says what to do."""


def repository_files(folder: Path, repo_id: str, *, with_code: bool = False) -> dict[str, Path | bytes]:
    """What a model repository holds of a run: model, tokenizer, card, recipe, results, report.

    Nothing else of the folder goes: no checkpoint, no training arguments, which may hold a token, and of the recipe
    no path of this machine.

    Args:
        folder: the run's `output_dir`, or one of its checkpoints.
        repo_id: the repository's id, which the card names.
        with_code: whether the model's own code goes with it, for `trust_remote_code=True`.

    Returns:
        path in the repository -> file, or its content.

    Raises:
        RecipeError, DataError: if the run's recipe or results are damaged.
    """
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    if with_code:
        config |= _CODE
    found: dict[str, Path | bytes] = {CONFIG_NAME: _json_bytes(config)}
    for pattern in WEIGHTS:
        found |= {path.name: path for path in folder.glob(pattern)}
    found |= _tokenizer_files(folder)
    found |= {name: folder / name for name in (RESULTS_NAME, "report.html") if (folder / name).is_file()}
    if (recipe := shared_recipe(folder)) is not None:
        found[RECIPE_NAME] = recipe.to_yaml().encode()
    card = folder / CARD_NAME
    if is_edited(card):
        found[CARD_NAME] = card
    else:
        found[CARD_NAME] = model_card(folder, repo_id, with_code=with_code).encode()
    if with_code:
        found |= {path.name: path for path in MODELING.glob("*_multitask.py")}
    return found


def make_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Make a model repository if it is not there.

    Args:
        repo_id: `name` or `owner/name`.
        private: whether a new repository is private; by default as the owner's settings say.
        token: by default that of HF_TOKEN or of `hf auth login`.

    Returns:
        Its full id.

    Raises:
        HubError: if the Hub refuses it or is not reached.
    """
    with hub_errors(repo_id):
        return HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id


def push_files(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    commit_message: str,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> CommitInfo:
    """Push files to a repository as one commit.

    Weights that the repository has from before under other names, such as shards, go.

    Args:
        files: path in the repository -> file, or its content.
        repo_id: the repository.
        commit_message: the commit's first line.
        revision: a branch to push to, made if it is not there; `main` by default.
        create_pr: open a pull request in place of pushing.
        token: by default that of HF_TOKEN or of `hf auth login`.

    Raises:
        HubError: if the Hub refuses it or is not reached. The same call may be repeated.
    """
    with hub_errors(repo_id):
        api = HfApi(token=token)
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = [path for path in api.list_repo_files(repo_id, revision=revision) if "/" not in path]
        old = [path for path in there if path not in files and any(fnmatch(path, name) for name in WEIGHTS)]
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path, content) for path, content in sorted(files.items())),
                *(CommitOperationDelete(path) for path in old),
            ],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Inside, what goes wrong with the Hub is a `HubError` in one line that says what to do.

    Args:
        repo_id: the repository, for the message.
    """
    try:
        yield
    except RuntimeError as error:  # of the upload of a large file, whose cause says more
        raise HubError(f"{repo_id}: {_advice(error.__cause__ or error)}") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise HubError(f"{repo_id}: {_advice(error)}") from error


def load_advice(error: BaseException) -> str:
    """What an error in loading from the Hub says, in one line; a failed connection beneath it, if there is one.

    transformers speaks in that case of a file that is not in the repository.
    """
    beneath: BaseException | None = error
    while beneath is not None:
        if isinstance(beneath, httpx.TransportError):
            return f"the connection to the Hub failed ({_reason(beneath)}). Try again."
        beneath = beneath.__cause__ or beneath.__context__
    return one_line(error)


def _advice(error: BaseException) -> str:
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token. {_LOG_IN}"
    if isinstance(error, HFValidationError):
        return f"this is no repository's name. {one_line(error)}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it to push."
    if isinstance(error, RevisionNotFoundError):
        return f"there is no such revision. {one_line(error)}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            is_known = "Authorization" in error.response.request.headers
            return f"{'the Hub does not know the token' if is_known else 'there is no token'}. {_LOG_IN}"
        if status == 403:
            return f"the token may not write there. Name a repository of your own. {_LOG_IN}"
        if status >= 500:
            return f"the Hub failed ({status}). {_AGAIN}"
        return f"the Hub refused it ({status}): {one_line(error)}"
    if isinstance(error, ValueError):
        return f"it cannot be pushed: {one_line(error)}"
    return f"the connection to the Hub failed ({_reason(error)}). {_AGAIN}"


def _reason(error: BaseException) -> str:
    return one_line(error).rstrip(".") or type(error).__name__


def _tokenizer_files(folder: Path) -> dict[str, bytes]:
    """What the tokenizer in a folder consists of: names differ between kinds, so it is asked to save itself."""
    with tempfile.TemporaryDirectory() as copy:
        AutoTokenizer.from_pretrained(folder).save_pretrained(copy)
        return {path.name: path.read_bytes() for path in Path(copy).iterdir()}


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
