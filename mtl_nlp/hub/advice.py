"""Errors of the Hub, each as one line that names the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from mtl_nlp.errors import HubError
from mtl_nlp.messages import one_line

_AGAIN = "A push is one commit, so nothing was pushed in part. Push again."

_LOG_IN = "Log in (hf auth login) or set HF_TOKEN to a token with write access."


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn the errors of a push inside this context into a `HubError` in one line that names the remedy.

    Args:
        repo_id: the repository, for the message.

    Raises:
        HubError: if the Hub refuses a request or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:  # from the upload of a large file; its cause has the details
        raise HubError(f"{repo_id}: {_advice(error.__cause__ or error)}") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise HubError(f"{repo_id}: {_advice(error)}") from error


def load_advice(error: BaseException) -> str:
    """Return one line on an error in loading from the Hub.

    If a failed connection caused the error, the line says so. The error itself may not: transformers then reports a
    file that is missing from the repository.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, httpx.TransportError):
            return f"the connection to the Hub failed ({_reason(cause)}). Try again."
        cause = cause.__cause__ or cause.__context__
    return one_line(error)


def _advice(error: BaseException) -> str:
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token. {_LOG_IN}"
    if isinstance(error, HFValidationError):
        return f"this is not a valid repository name. {one_line(error)}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which forbids requests to the Hub. Unset it to push."
    if isinstance(error, RevisionNotFoundError):
        return f"there is no such revision. {one_line(error)}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            has_token = "Authorization" in error.response.request.headers
            return f"{'the Hub does not accept the token' if has_token else 'there is no token'}. {_LOG_IN}"
        if status == 403:
            return f"the token has no write access to it. Name a repository of your own. {_LOG_IN}"
        if status >= 500:
            return f"the Hub failed ({status}). {_AGAIN}"
        return f"the Hub refused the push ({status}): {one_line(error)}"
    if isinstance(error, ValueError):
        return f"the files cannot be pushed: {one_line(error)}"
    return f"the connection to the Hub failed ({_reason(error)}). {_AGAIN}"


def _reason(error: BaseException) -> str:
    return one_line(error).rstrip(".") or type(error).__name__
