"""A Hub of one's own on this machine: repositories of files, gated and private ones, uploads; and a process that asks it.

It answers what huggingface_hub, transformers and diffusers ask: the facts of a repository, its tree, its files with their hashes,
and what an upload needs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_theRightOne"
SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Files by name. Without the token a gated one shows its facts but no files, a private one nothing."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


class LocalHub:
    """Repositories by name, at `url`; `asked` lists the requests ("GET /api/models/me/mine" ...)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.status: int | None = None
        """Answer everything but the front page with this status."""
        self.silent: set[str] = set()
        """Requests for files of these methods ("HEAD", "GET") get no answer while the Hub runs."""
        self.refuses: tuple[int, str] | None = None
        """Answer requests for files with this status and message."""
        self.closed = threading.Event()
        self.stored: dict[str, bytes] = {}
        """Large files that were uploaded, by their sha256, before a commit names them."""
        self.etag: Callable[[bytes], str] = lambda data: hashlib.sha256(data).hexdigest()
        """What a file's content is called: large ones by their sha256, small ones by git's sum on the real Hub."""

    def add(self, name: str, folder: Path | None = None, *, gated: bool = False, private: bool = False) -> Repository:
        """A repository with the files of a folder."""
        files = (
            {} if folder is None else {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
        self.repositories[name] = Repository(files, gated, private)
        return self.repositories[name]

    def here(self, monkeypatch: pytest.MonkeyPatch, cache: Path, *, token: str | None = None) -> None:
        """Let this process know this Hub alone, with its cache in `cache`, until the test ends."""
        from huggingface_hub import constants

        known = {"ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}"}
        known |= {"HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache), "HF_HUB_ETAG_TIMEOUT": 1}
        for name, value in known.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(self, script: str, *, home: Path, token: str | None = None) -> Any:
        """What a Python script prints as JSON, run in a process that knows this Hub alone and has its cache in `home`."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        env |= {"HF_TOKEN": token} if token else {}
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])


@contextmanager
def local_hub(tls: ssl.SSLContext | None = None) -> Iterator[LocalHub]:
    """A Hub that runs for a while, with `tls` (a server's context) by https."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    hub = LocalHub(f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> LocalHub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if path == "/":
            return self._send(200, b"a hub")
        if self.hub.status is not None:
            return self._send(self.hub.status, b"", {"X-Error-Message": "the hub is ill"})
        if path == "/api/whoami-v2":
            return self._json({"name": "me", "type": "user"}) if self._known() else self._send(401)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith("/lfs/"):
            self.hub.stored[path.removeprefix("/lfs/")] = body
            return self._send(200)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._large(json.loads(body)) if self._known() else self._send(401)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path)
        if found:
            return self._about(found[1], found[2] or "", body)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        return self._file(found[1], found[2], found[3]) if found else self._send(404)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _create(self, asked: dict[str, Any]) -> None:
        if not self._known():
            return self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
        if asked.get("organization") not in (None, "me"):
            return self._send(403, b"", {"X-Error-Message": "You don't have the rights to create a model under this namespace"})
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            return self._send(409, json.dumps({"error": "you have it already", "url": f"{self.hub.url}/{name}"}).encode())
        self.hub.add(name, private=bool(asked.get("private")) or asked.get("visibility") == "private")
        return self._json({"url": f"{self.hub.url}/{name}"})

    def _large(self, asked: dict[str, Any]) -> None:
        """Where large files are to be put (git's LFS)."""
        places = [{**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}} for one in asked["objects"]]
        self._send(
            200, json.dumps({"transfer": "basic", "objects": places}).encode(), {"Content-Type": "application/vnd.git-lfs+json"}
        )

    def _visible(self, name: str) -> Repository | None:
        """The repository, or None once it has been said that there is none."""
        repository = self.hub.repositories.get(name)
        if repository is not None and not (repository.private and not self._known()):
            return repository
        if self._known():
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        else:  # as the real one, which does not tell strangers what there is
            given = self.headers.get("Authorization")
            wrong = "Invalid credentials in Authorization header" if given else "Invalid username or password."
            self._send(401, b"", {"X-Error-Message": wrong})
        return None

    def _about(self, name: str, rest: str, body: bytes) -> None:
        repository = self._visible(name)
        if repository is None:
            return
        if rest.startswith("/preupload/") or rest.startswith("/commit/"):
            return self._upload(repository, name, rest, body)
        if rest.startswith("/tree/"):
            listed = [_entry(path, data) for path, data in repository.files.items()]
            return self._json(listed)
        if rest.startswith("/revision/") and rest.removeprefix("/revision/") not in ("main", SHA):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        facts = {"id": name, "modelId": name, "sha": SHA, "private": repository.private, "tags": []}
        facts |= {
            "gated": "manual" if repository.gated else False,
            "siblings": [{"rfilename": path} for path in repository.files],
        }
        return self._json(facts)

    def _upload(self, repository: Repository, name: str, rest: str, body: bytes) -> None:
        if not self._known():
            return self._send(403)
        if rest.startswith("/preupload/"):
            asked = json.loads(body)["files"]
            modes = {one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular" for one in asked}
            return self._json(
                {"files": [{"path": name, "uploadMode": how, "shouldIgnore": False} for name, how in modes.items()]}
            )
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            if entry["key"] == "lfsFile":
                repository.files[entry["value"]["path"]] = self.hub.stored[entry["value"]["oid"]]
        return self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{SHA}", "commitOid": SHA, "success": True})

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._visible(name)
        if repository is None:
            return
        if revision not in ("main", SHA):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if repository.gated and not self._known():
            return self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted."})
        if self.hub.refuses is not None:
            return self._send(self.hub.refuses[0], b"", {"X-Error-Message": self.hub.refuses[1]})
        if self.command in self.hub.silent:
            self.hub.closed.wait()
        data = repository.files.get(path)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
        self._send(200, data, {"ETag": f'"{self.hub.etag(data)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"})

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
