"""Model repositories on the Hub: the files of a run that are pushed, and the push as one commit."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from transformers import AutoTokenizer
from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import HubError
from mtl_nlp.hub.advice import hub_errors
from mtl_nlp.hub.links import check_has_no_links
from mtl_nlp.hub.model_card import is_edited, model_card
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.head_types_multitask import HEADS, registered_name
from mtl_nlp.recipe.local_paths import local_path
from mtl_nlp.run_folder import CARD_NAME, CONFLICT_NAME, RECIPE_NAME, RESULTS_NAME, shared_recipe

MODELING = Path(__file__).parents[1] / "modeling"

WEIGHTS = ("model*.safetensors", "model*.safetensors.index.json")

_NAMES_A_FILE = re.compile(r"(^|_)(path|file|dir)$")
"""The end of a key whose value may be a path, in the files of models and tokenizers."""

_CODE = {
    "auto_map": {
        "AutoConfig": "configuration_multitask.MultitaskConfig",
        "AutoModel": "modeling_multitask.MultitaskModel",
    },
    # The name differs from that of mtl_nlp's own pipeline. Under the same name transformers would demand
    # `trust_remote_code` from users of mtl_nlp too.
    "custom_pipelines": {
        "multitask-encoder": {"impl": "pipeline_multitask.MultitaskPipeline", "pt": ["AutoModel"], "type": "text"}
    },
}


def repository_files(folder: Path, repo_id: str, *, with_code: bool = False) -> dict[str, Path | bytes]:
    """Return the files of a run for its model repository: model, tokenizer, card, recipe, results and measured
    conflict.

    The other files of the folder stay private: the checkpoints, the training arguments, which may hold a token, and
    the predictions and the report, which quote texts of the datasets. `mtl-nlp push` adds a report without texts.
    The recipe, the configuration and the tokenizer have no paths of this machine.

    Args:
        folder: the run's `output_dir`, or one of its checkpoints.
        repo_id: the repository's id, which the card names.
        with_code: whether to add the model's own code, for `trust_remote_code=True`.

    Returns:
        A dict from the path in the repository to the file, or to its content.

    Raises:
        RecipeError: if the run's recipe is damaged or holds a secret.
        DataError: if the run's results are damaged.
        ModelError: if the folder has a symbolic link to a file outside of it.
        HubError: if code is requested for a task type or head from outside of this package, whose code would be
            missing.
    """
    check_has_no_links(folder)
    config = json.loads(shared_bytes(folder / CONFIG_NAME))
    if with_code:
        _check_code_is_complete(folder)
        config |= _CODE
    found: dict[str, Path | bytes] = {CONFIG_NAME: _json_bytes(config)}
    for pattern in WEIGHTS:
        found |= {path.name: path for path in folder.glob(pattern)}
    found |= _tokenizer_files(folder)
    found |= {name: folder / name for name in (RESULTS_NAME, CONFLICT_NAME) if (folder / name).is_file()}
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


def check_can_be_published(folder: Path) -> None:
    """Check the files of a run, except weights and tokenizer, before a repository is created for them.

    Args:
        folder: the run's `output_dir`.

    Raises:
        RecipeError: if the run's recipe is damaged or holds a secret.
        DataError: if the run's results are damaged.
        ModelError: if the folder has a symbolic link to a file outside of it.
    """
    check_has_no_links(folder)
    model_card(folder, folder.name)


def shared_bytes(path: Path) -> bytes:
    """Return the content of a file of a model or tokenizer, without local paths if it is a configuration."""
    data = path.read_bytes()
    if not path.name.endswith("config.json"):
        return data
    content = json.loads(data)
    shared = _without_paths_of_files(content)
    return data if shared == content else _json_bytes(shared)


def _without_paths_of_files(content: Any) -> Any:
    """Return JSON content in which local paths, as values of keys such as `_name_or_path`, are only names."""
    if isinstance(content, dict):
        return {
            key: _name_of_file(value) if _NAMES_A_FILE.search(key) else _without_paths_of_files(value)
            for key, value in content.items()
        }
    return [_without_paths_of_files(item) for item in content] if isinstance(content, list) else content


def _name_of_file(value: Any) -> Any:
    path = local_path(value) if isinstance(value, str) else None
    return _without_paths_of_files(value) if path is None else path.name


def _check_code_is_complete(folder: Path) -> None:
    """Check that all task types, label kinds and heads of a model are defined in this package."""
    for task in MultitaskConfig.from_pretrained(folder).get_tasks():
        head = registered_name(task.head)
        for made in (type(task), type(task.kind), *([] if head is None else [HEADS[head]])):
            if made.__module__.split(".")[0] != __name__.split(".")[0]:
                raise HubError(
                    f"Task {task.name!r}: its code is in the module {made.__module__}, which is not part of the "
                    f"pushed code. Push without code: users need mtl_nlp and that module."
                )


def make_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Create a model repository unless it exists.

    Args:
        repo_id: `name` or `owner/name`.
        private: whether a new repository is private; by default the owner's settings decide.
        token: the token; by default that of HF_TOKEN or of `hf auth login`.

    Returns:
        The full id of the repository, `owner/name`.

    Raises:
        HubError: if the Hub refuses the request or cannot be reached.
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

    The commit deletes earlier weights under different names, such as shards.

    Args:
        files: a dict from the path in the repository to the file, or to its content.
        repo_id: the repository's id.
        commit_message: the first line of the commit message.
        revision: the branch to push to, which is created if it does not exist; `main` by default.
        create_pr: whether to open a pull request instead of pushing.
        token: the token; by default that of HF_TOKEN or of `hf auth login`.

    Returns:
        The commit, with the address of the pull request if there is one.

    Raises:
        HubError: if the Hub refuses the push or cannot be reached. The same call may be repeated.
    """
    with hub_errors(repo_id):
        api = HfApi(token=token)
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        existing = [path for path in api.list_repo_files(repo_id, revision=revision) if "/" not in path]
        old = [path for path in existing if path not in files and any(fnmatch(path, name) for name in WEIGHTS)]
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
    """Return the tokenizer's files. Their names depend on the kind of tokenizer, so it is saved again to find them."""
    with tempfile.TemporaryDirectory() as copy:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(copy)
        return {path.name: shared_bytes(path) for path in Path(copy).iterdir()}


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json_text(content, indent=2, sort_keys=True) + "\n").encode()
