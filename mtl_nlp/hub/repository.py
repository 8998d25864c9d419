"""To the Hub: what of a run is pushed, as one commit, and what to do if that fails."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from transformers import AutoTokenizer
from transformers.utils import CONFIG_NAME

from mtl_nlp.hub.advice import hub_errors
from mtl_nlp.hub.model_card import is_edited, model_card
from mtl_nlp.run_folder import CARD_NAME, RECIPE_NAME, REPORT_NAME, RESULTS_NAME, shared_recipe

MODELING = Path(__file__).parents[1] / "modeling"

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
    found |= {name: folder / name for name in (RESULTS_NAME, REPORT_NAME) if (folder / name).is_file()}
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


def _tokenizer_files(folder: Path) -> dict[str, bytes]:
    """What the tokenizer in a folder consists of: names differ between kinds, so it is asked to save itself."""
    with tempfile.TemporaryDirectory() as copy:
        AutoTokenizer.from_pretrained(folder).save_pretrained(copy)
        return {path.name: path.read_bytes() for path in Path(copy).iterdir()}


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
