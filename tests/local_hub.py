"""A local Hub: repositories, commits, branches and pull requests over HTTP, with faults on request.

The local Hub answers the requests with which huggingface_hub creates repositories, commits (large files through LFS)
and downloads. It stores every byte that it receives, and it validates the header of model cards.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

ADA, READER, EVE = "hf_ofAdaWhoMayWrite", "hf_ofAdaWhoMayRead", "hf_ofEveWhoMayWrite"
"""Tokens: one of Ada that may write, one of Ada that may only read, and one of Eve, a different user."""
_ACCOUNTS = {ADA: ("ada", True), READER: ("ada", False), EVE: ("eve", True)}
_LARGE = {".safetensors", ".bin", ".pt", ".pth"}


@dataclass(frozen=True)
class Commit:
    """A commit with all files of the repository after it."""

    id: str
    message: str
    files: Mapping[str, bytes]


@dataclass
class Repository:
    """A model repository: branches, and pull requests as `refs/pr/1`, …, each with its commits, oldest first."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)


@dataclass
class Fault:
    """A fault at one step of the traffic with a repository.

    Attributes:
        step: `create`, `branch`, `preupload`, `batch`, `upload` (of a large file), `commit`, `info` or `download`.
        status: the status of the answer.
        cut: close the connection: during an upload, or after this number of bytes of a downloaded file.
        short: send only this number of bytes of a file, and announce it as the length of the file.
        delay: the number of seconds to wait first.
        times: the number of times that the fault occurs; None for always.
        path: restrict the fault to the download of this file.
    """

    step: str
    status: int | None = None
    cut: int | None = None
    short: int | None = None
    delay: float = 0.0
    times: int | None = None
    path: str | None = None


class LocalHub:
    """A Hub that serves from its creation until `close`.

    Attributes:
        endpoint: the address of the Hub.
        repositories: `owner/name` -> repository.
        requests: all requests as `METHOD path`.
        received: the bodies of all requests, and the decoded files of all commits.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.received: list[bytes] = []
        self.objects: dict[tuple[str, str], bytes] = {}
        self.lock = threading.RLock()
        self._faults: dict[str, list[Fault]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = ADA) -> dict[str, str]:
        """Return the variables that a user of this Hub adds to the environment."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home / "hf"),
            "HOME": str(home),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def fail(self, repo_id: str, step: str, **how: Any) -> None:
        """Add a fault to a repository, which may not exist yet; see `Fault` for the arguments."""
        self._faults.setdefault(repo_id, []).append(Fault(step, **how))

    def heal(self, repo_id: str) -> None:
        """Remove the faults of a repository."""
        self._faults.pop(repo_id, None)

    def fault(self, repo_id: str, step: str, path: str | None = None) -> Fault:
        """Return the fault of the current request; an empty fault if there is none."""
        with self.lock:
            for fault in self._faults.get(repo_id, []):
                if fault.step == step and fault.times != 0 and fault.path in {None, path}:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return Fault(step)

    def commits(self, repo_id: str, branch: str = "main") -> list[str]:
        """Return the messages of the commits of a branch, except the commit that created the repository."""
        return [commit.message for commit in self.repositories[repo_id].branches[branch][1:]]

    def files(self, repo_id: str, branch: str = "main") -> Mapping[str, bytes]:
        """Return the files of a branch, except the file that the Hub adds to every repository."""
        files = self.repositories[repo_id].branches[branch][-1].files
        return {path: content for path, content in files.items() if path != ".gitattributes"}

    def put(self, repo_id: str, files: Mapping[str, bytes], *, private: bool = False, message: str = "Put") -> None:
        """Put files into a repository without a request; create a missing repository."""
        if repo_id not in self.repositories:
            self.make(repo_id, private=private)
        self.commit(repo_id, "main", message, {**self.repositories[repo_id].branches["main"][-1].files, **files})

    def leaked(self, words: Iterable[str]) -> set[str]:
        """Return the words that occur in any received content."""
        return {word for word in words if any(word.encode() in content for content in self.received)}

    def make(self, repo_id: str, *, private: bool) -> None:
        """Create a repository with one commit, as the Hub does."""
        self.repositories[repo_id] = Repository(private, {"main": []})
        self.commit(repo_id, "main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs -text\n"})

    def commit(self, repo_id: str, branch: str, message: str, files: Mapping[str, bytes]) -> str:
        """Add a commit with exactly these files, and return its id."""
        with self.lock:
            commits = self.repositories[repo_id].branches[branch]
            name = hashlib.sha1(f"{repo_id} {branch} {len(commits)} {time.time_ns()}".encode()).hexdigest()
            commits.append(Commit(name, message, dict(files)))
        return name


class _Refused(Exception):
    """An answer that refuses a request."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        super().__init__(message or code)
        self.status, self.message = status, message or code
        self.headers = {"X-Error-Message": self.message, **({"X-Error-Code": code} if code else {}), **headers}


class _Handler(BaseHTTPRequestHandler):
    """One connection. A route is an HTTP method, a pattern of the encoded path, and the function that answers."""

    hub: LocalHub
    protocol_version = "HTTP/1.1"
    routes: ClassVar[list[tuple[str, str, Callable[..., None]]]] = []

    def log_message(self, *args: Any) -> None:
        """Print nothing to stderr."""

    def handle(self) -> None:
        """Serve the connection until either side closes it."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def answer(self) -> None:
        """Find the route of the request and call its function."""
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self._body: bytes | None = None
        self.hub.requests.append(f"{self.command} {unquote(url.path)}")
        try:
            self.account, self.may_write = self._who()
            for method, pattern, route in self.routes:
                if (match := re.fullmatch(pattern, url.path)) and self.command in method.split("|"):
                    return route(self, *(unquote(group) for group in match.groups()))
            raise _Refused(404, "NoRoute", f"{self.command} {url.path}")
        except _Refused as refused:
            self.send(refused.status, {"error": refused.message}, **refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def send(self, status: int, content: Any = b"", **headers: str) -> None:
        """Read the request and answer with bytes or JSON."""
        self.body()
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        """Return the complete body of the request."""
        if self._body is None:
            self._body = b"".join(self._pieces())
            self.hub.received.append(self._body)
        return self._body

    def json(self) -> Any:
        """Return the body of the request as JSON."""
        return json.loads(self.body())

    def meet(self, fault: Fault) -> None:
        """Apply a fault to the current request; an empty fault does nothing."""
        time.sleep(fault.delay)
        if fault.cut is not None:
            if self._body is None:
                next(self._pieces(), None)
            self.drop()
        if fault.status is not None:
            raise _Refused(fault.status, message="It was meant to fail.")

    def drop(self) -> None:
        """Close the connection."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def _pieces(self) -> Iterator[bytes]:
        """Yield the body of the request in pieces as they arrive."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            yield (piece := self.rfile.read(min(left, 1 << 16)))
            left -= len(piece)

    def _who(self) -> tuple[str | None, bool]:
        """Return the account of the request, and whether its token may write."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token or self.path.startswith("/lfs/"):  # the link itself grants permission
            return None, False
        if token not in _ACCOUNTS:
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return _ACCOUNTS[token]

    def _repository(self, repo_id: str) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and self.account != repo_id.split("/")[0]):
            raise _Refused(404 if self.account else 401, "RepoNotFound", "Repository not found")
        return repository

    def _may_write(self, owner: str) -> None:
        if self.account is None:
            raise _Refused(401, message="Invalid username or password.")
        if self.account != owner or not self.may_write:
            raise _Refused(403, message=f"You don't have the rights to write to {owner}")

    def _at(self, repo_id: str, revision: str) -> Commit:
        branches = self._repository(repo_id).branches
        if revision in branches:
            return branches[revision][-1]
        for commit in (commit for commits in branches.values() for commit in commits):
            if commit.id == revision:
                return commit
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def whoami(self) -> None:
        """Answer with the owner of the token."""
        if self.account is None:
            raise _Refused(401, message="Invalid username or password.")
        self.send(200, {"type": "user", "name": self.account, "orgs": []})

    def create(self) -> None:
        """Create a repository."""
        asked = self.json()
        owner = asked.get("organization") or self.account
        repo_id = f"{owner}/{asked['name']}"
        self.meet(self.hub.fault(repo_id, "create"))
        self._may_write(owner)
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}
        if repo_id in self.hub.repositories:
            self.send(409, {"error": "You already created this model repo", **answer})
        else:
            self.hub.make(repo_id, private=asked.get("visibility") == "private")
            self.send(200, answer)

    def branch(self, repo_id: str, name: str) -> None:
        """Create a branch from `main`."""
        self.meet(self.hub.fault(repo_id, "branch"))
        branches = self._repository(repo_id).branches
        self._may_write(repo_id.split("/")[0])
        if name in branches:
            raise _Refused(409, message="Reference already exists")
        branches[name] = list(branches["main"])
        self.send(200, {})

    def validate(self) -> None:
        """Validate the header of a card."""
        errors = [{"message": message} for message in card_errors(self.json()["content"])]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def info(self, repo_id: str, _: str = "", revision: str = "main") -> None:
        """Answer with the description of a repository at a revision."""
        self.meet(self.hub.fault(repo_id, "info"))
        commit = self._at(repo_id, revision)
        files = [{"rfilename": path} for path in sorted(commit.files)]
        self.send(200, {"id": repo_id, "sha": commit.id, "tags": [], "siblings": files, **self._pipeline_tag(commit)})

    def refs(self, repo_id: str) -> None:
        """Answer with the branches of a repository."""
        names = [name for name in self._repository(repo_id).branches if not name.startswith("refs/")]
        found = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": self._at(repo_id, n).id} for n in names]
        self.send(200, {"branches": found, "converts": [], "tags": []})

    def tree(self, repo_id: str, revision: str, folder: str = "") -> None:
        """Answer with the files at a revision."""
        files = self._at(repo_id, revision).files
        inside = {path: content for path, content in files.items() if path.startswith(folder.strip("/"))}
        if folder and not inside:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        self.send(200, [{"type": "file", "path": p, "size": len(c), "oid": _git_hash(c)} for p, c in inside.items()])

    def preupload(self, repo_id: str, revision: str) -> None:
        """Answer with the upload mode of each file."""
        self.meet(self.hub.fault(repo_id, "preupload"))
        self._at(repo_id, revision)
        self._may_commit(repo_id)
        self.send(200, {"files": [self._mode(file["path"], repo_id, revision) for file in self.json()["files"]]})

    def _mode(self, path: str, repo_id: str, revision: str) -> dict[str, Any]:
        large = PurePosixPath(path).suffix in _LARGE
        there = self._at(repo_id, revision).files.get(path)
        oid = None if there is None else hashlib.sha256(there).hexdigest() if large else _git_hash(there)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _may_commit(self, repo_id: str) -> None:
        # Every account with write permission may open a pull request.
        self._may_write(self.account if "create_pr" in self.query and self.account else repo_id.split("/")[0])

    def batch(self, repo_id: str) -> None:
        """Answer with the upload links of missing large files."""
        self.meet(self.hub.fault(repo_id, "batch"))
        objects = []
        for wanted in self.json()["objects"]:
            link = {"href": f"{self.hub.endpoint}/lfs/{repo_id}/{wanted['oid']}", "header": {}}
            missing = (repo_id, wanted["oid"]) not in self.hub.objects
            objects.append({**wanted, **({"actions": {"upload": link}} if missing else {})})
        content = {"transfer": "basic", "objects": objects}
        self.send(200, content, **{"Content-Type": "application/vnd.git-lfs+json"})

    def upload(self, repo_id: str, oid: str) -> None:
        """Store a large file."""
        self.meet(self.hub.fault(repo_id, "upload"))
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise _Refused(400, message="The content differs from the announced content.")
        self.hub.objects[repo_id, oid] = content
        self.send(200, {})

    def push(self, repo_id: str, revision: str) -> None:
        """Apply a commit completely or not at all."""
        self.meet(self.hub.fault(repo_id, "commit"))
        branches = self._repository(repo_id).branches
        self._may_commit(repo_id)
        files = dict(self._at(repo_id, revision).files)
        message = ""
        for line in self.body().splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.hub.received.append(files[value["path"]])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[repo_id, value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise _Refused(400, message=f"no such operation {key}")
        answer: dict[str, Any] = {"success": True}
        if "create_pr" in self.query:
            number = 1 + sum(name.startswith("refs/pr/") for name in branches)
            branches[f"refs/pr/{number}"] = list(branches[revision])
            revision = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo_id}/discussions/{number}"
        oid = self.hub.commit(repo_id, revision, message, files)
        self.send(200, {**answer, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"})

    def download(self, repo_id: str, revision: str, path: str) -> None:
        """Answer with a file, or with the requested range of it."""
        commit = self._at(repo_id, revision)
        headers = {"X-Repo-Commit": commit.id}
        if path not in commit.files:
            raise _Refused(404, "EntryNotFound", "Entry not found", **headers)
        fault = Fault("download") if self.command == "HEAD" else self.hub.fault(repo_id, "download", path)
        self.meet(Fault("download", fault.status, delay=fault.delay))
        content = commit.files[path]
        etag = hashlib.sha256(content).hexdigest()
        headers |= {"Content-Type": "application/octet-stream", "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        part = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(part[1]) if part else 0
        if part:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault.cut is not None:
            self.send_response(206 if part else 200)
            for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[start : max(start, fault.cut)])
            self.drop()
        self.send(206 if part else 200, content[start : fault.short], **headers)

    def _pipeline_tag(self, commit: Commit) -> dict[str, str]:
        header = card_header(commit.files.get("README.md", b"").decode())
        return {"pipeline_tag": header["pipeline_tag"]} if "pipeline_tag" in header else {}


_REPO, _REV = r"([^/]+/[^/]+)", r"([^/]+)"
_Handler.routes = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_REPO}/branch/{_REV}", _Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REV}", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/{_REV}", _Handler.push),
    ("GET", rf"/api/models/{_REPO}/refs", _Handler.refs),
    ("GET", rf"/api/models/{_REPO}/tree/{_REV}", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}/tree/{_REV}/(.+)", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}/(revision)/{_REV}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}", _Handler.info),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", rf"/lfs/{_REPO}/([0-9a-f]+)", _Handler.upload),
    ("GET|HEAD", rf"/{_REPO}/resolve/{_REV}/(.+)", _Handler.download),
]


def card_errors(card: str) -> list[str]:
    """Return the errors in the header of a card, according to the Hub's documentation; empty if it is valid."""
    try:
        header = card_header(card)
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    errors = []
    kinds = {
        **dict.fromkeys(("license", "library_name", "pipeline_tag"), (str,)),
        **dict.fromkeys(("language", "base_model"), (str, list)),
        **dict.fromkeys(("datasets", "metrics", "tags", "model-index"), (list,)),
    }
    for key, value in header.items():
        if not isinstance(value, kinds.get(key, (object,))):
            errors.append(f'"{key}" must not be {value!r}')
        elif key != "model-index" and isinstance(value, list) and not all(isinstance(item, str) for item in value):
            errors.append(f'"{key}" must be a list of strings')
    for model in header.get("model-index", []):
        if not isinstance(model.get("name"), str):
            errors.append('"model-index[].name" is required')
        for result in model["results"]:
            if not all(isinstance(result["task"].get(key), str) for key in ("type", "name")):
                errors.append('"model-index[].results[].task" needs a type')
            if not all(isinstance(value, str) for value in result["dataset"].values()) or not (
                {"name", "type"} <= result["dataset"].keys()
            ):
                errors.append('"model-index[].results[].dataset" needs a type and a name')
            if not all(isinstance(m["type"], str) and isinstance(m["value"], float) for m in result["metrics"]):
                errors.append('"model-index[].results[].metrics" need a type and a value')
    return errors


def card_header(card: str) -> dict[str, Any]:
    """Return the header of a card; empty if the card has no header."""
    match = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    header = yaml.safe_load(match[1]) if match else {}
    if not isinstance(header, dict):
        raise yaml.YAMLError(f"not a mapping: {header!r:.80}")
    return header


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
