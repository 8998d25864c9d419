"""Pushes to a Hub that fail, and the messages that they print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from interpreter import Finished
from local_hub import EVE, READER

ALL_FILES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "recipe.yaml",
    "report.html",
    "results.json",
    "tokenizer.json",
    "tokenizer_config.json",
}

MESSAGE = "Upload model trained with mtl_nlp"


def error_of(finished: Finished) -> str:
    """Check that a command refused its input, and return the one line that it printed."""
    assert finished.status == 2, finished
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("mtl-nlp: error: ")
    return line


# Pushes that fail


class Failing(NamedTuple):
    """A push that fails: its message, the fault, the token, and the failing request with the number of attempts."""

    message: str
    step: str | None = None
    fault: Mapping[str, Any] = {}
    token: str | None = None
    request: str = ""
    attempts: int = 1


AGAIN = "A push is one commit, so nothing was pushed in part. Push again."

LOG_IN = "Log in (hf auth login) or set HF_TOKEN to a token with write access."

FAILED = f"the Hub failed (500). {AGAIN}"

CUT = f"the connection to the Hub failed (Server disconnected without sending a response). {AGAIN}"

FAILING = {
    "a-wrong-token": Failing(f"the Hub does not accept the token. {LOG_IN}", token="hf_nobodys"),
    "no-token": Failing(f"there is no token. {LOG_IN}", token=""),
    "a-token-to-read": Failing(
        f"the token has no write access to it. Name a repository of your own. {LOG_IN}", token=READER
    ),
    "a-repository-of-others": Failing(
        f"the token has no write access to it. Name a repository of your own. {LOG_IN}", token=EVE
    ),
    "a-right-lost-on-the-way": Failing("the token has no write access to it", "commit", {"status": 403}),
    "no-repository-made": Failing(FAILED, "create", {"status": 500}),
    "no-branch-made": Failing(CUT, "branch", {"cut": 0}),
    # huggingface_hub repeats these requests after 1, 2, 4, 8 and 8 seconds.
    "plans-refused": Failing(FAILED, "preupload", {"status": 500}, None, "{}/preupload/main", 6),
    "upload-refused": Failing(FAILED, "upload", {"status": 500}, None, "/lfs/{}/", 6),
    "upload-cut": Failing(CUT, "upload", {"cut": 0}, None, "/lfs/{}/", 6),
    "commit-refused": Failing(FAILED, "commit", {"status": 500}, None, "{}/commit/main"),
    "commit-cut": Failing(CUT, "commit", {"cut": 0}, None, "{}/commit/main"),
    "too-large": Failing("the Hub refused the push (413)", "commit", {"status": 413}, None, "{}/commit/main"),
}
"""The name of the repository -> the push."""
