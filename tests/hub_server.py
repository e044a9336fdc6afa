"""A stand-in for the Hugging Face hub: as much of its HTTP API as uploading and downloading a model asks for.

It listens on 127.0.0.1. The one user is ``me``, with the token ``good``, who may write to ``me/…``.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "good"


@dataclass
class Repository:
    """A repository: its commits, each with all its files."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    """Files of which less is sent than was promised."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What is said of files' sizes, where that is not the truth."""

    def commit(self, files: dict[str, bytes]) -> str:
        """Take ``files`` for all that there is now, and return the commit's hash."""
        content = repr([len(self.commits), *((name, files[name]) for name in sorted(files))])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        return sha

    @property
    def head(self) -> str:
        """The last commit."""
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        """What is there now."""
        return self.commits[self.head]

    def at(self, revision: str) -> str | None:
        """The commit of a revision."""
        return self.head if revision == "main" else revision if revision in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server and what it holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes], **about: bool) -> Repository:
        """Make a repository with these files."""
        self.repositories[name] = Repository(**about)
        self.repositories[name].commit(files)
        return self.repositories[name]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Error(Exception):
    """An answer that is no success: its status, and the hub's word for why."""

    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        try:
            for method, pattern, handle in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    handle(self, body, *match.groups())
                    return
            raise _Error(404, "EntryNotFound")
        except _Error as error:
            self._send(b"{}", status=error.status, headers={"X-Error-Code": error.code, "X-Error-Message": error.code})

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _send(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) - cut])
        if cut:
            self.close_connection = True

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self._known):
            raise _Error(404 if self._known else 401, "RepoNotFound")
        if found.gated:
            raise _Error(403, "GatedRepo")
        return found

    def _commit(self, name: str, revision: str | None) -> tuple[Repository, str]:
        repository = self._repository(name)
        sha = repository.at(revision or "main")
        if sha is None:
            raise _Error(404, "RevisionNotFound")
        return repository, sha

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self._known:
            raise _Error(401)
        owner = asked.get("organization") or "me"
        if owner != "me":
            raise _Error(403)
        name = f"{owner}/{asked['name']}"
        if name in self.server.repositories:
            # The client reads the address from this answer too.
            self._send(json.dumps({"url": f"{self.server.url}/{name}"}).encode(), status=409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.add(name, {".gitattributes": b""}, private=private)
        self._json({"url": f"{self.server.url}/{name}"})

    def validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def about(self, body: bytes, name: str, revision: str | None = None) -> None:
        repository, sha = self._commit(name, revision)
        siblings: list[dict[str, object]] = [{"rfilename": file} for file in repository.commits[sha]]
        if "blobs" in parse_qs(urlsplit(self.path).query):
            sizes = {file: len(content) for file, content in repository.commits[sha].items()} | repository.sizes
            siblings = [{"rfilename": file, "size": sizes[file]} for file in repository.commits[sha]]
        self._json({"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        repository, sha = self._commit(name, revision)
        self._json(
            [
                {"type": "file", "path": file, "size": len(content), "oid": _etag(content)}
                for file, content in repository.commits[sha].items()
            ]
        )

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        repository, sha = self._commit(name, revision)
        if file not in repository.commits[sha]:
            raise _Error(404, "EntryNotFound")
        content = repository.commits[sha][file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_etag(content)}"'}
        self._send(content, headers=headers, cut=len(content) // 2 if file in repository.cut_short else 0)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        files = [file["path"] for file in json.loads(body)["files"]]
        mode = {True: "lfs", False: "regular"}
        self._json(
            {
                "files": [
                    {"path": path, "uploadMode": mode[path.endswith(".safetensors")], "shouldIgnore": False}
                    for path in files
                ]
            }
        )

    def batch(self, body: bytes, name: str) -> None:
        objects = json.loads(body)["objects"]
        for one in objects:
            one["actions"] = {"upload": {"href": f"{self.server.url}/blobs/{one['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def blob(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._send(b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._known:
            raise _Error(401)
        repository = self._repository(name)
        files = dict(repository.files)
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})


def _etag(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{_NAME}", _Handler.about),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _Handler.about),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    ("POST", f"/{_NAME}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/blobs/([0-9a-f]+)", _Handler.blob),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
