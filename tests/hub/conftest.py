"""A hub on this machine: as much of the hub's HTTP interface as `huggingface_hub` asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

USERS = {"hf_ada": "ada", "hf_bob": "bob"}
"""Who a token belongs to; each may write what is under their own name."""
LARGE_SUFFIX = ".safetensors"
"""Of files that go to the large file storage."""


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    main: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        stated = repr((len(self.commits), sorted(files))).encode()
        self.main = hashlib.sha1(stated).hexdigest()
        self.commits[self.main] = files
        return self.main

    def at(self, revision: str) -> str:
        return self.main if revision == "main" else revision


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    downloaded: list[str] = field(default_factory=list)
    handler: Any = None

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> Repository:
        made = self.repositories[name] = Repository(private)
        made.commit(files)
        return made


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def user(self) -> str | None:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        return USERS.get(token)

    def body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def repository(self, name: str, *, writes: bool = False) -> Repository | None:
        """Answers in the hub's way where it is not to be had."""
        found, owner = self.hub.repositories.get(name), name.partition("/")[0]
        if found is None or (found.private and self.user != owner):
            self.answer(404 if self.user else 401, X_Error_Code="RepoNotFound")
        elif writes and self.user != owner:
            self.answer(403, {"error": "You don't have the required permissions"})
        else:
            return found
        return None

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if (found := self.repository(name)) is None:
            return None
        commit = found.at(unquote(revision))
        if commit not in found.commits:
            self.answer(404, X_Error_Code="RevisionNotFound")
            return None
        return commit, found.commits[commit]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(/.*)?", path):
            self.tree(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        else:
            self.answer(404, {"error": path})

    do_HEAD = do_GET  # noqa: N815

    def info(self, name: str, revision: str) -> None:
        if found := self.files(name, revision):
            commit, files = found
            card = files.get("README.md", b"").decode()
            licence = re.search(r"^license: (.+)$", card, re.MULTILINE)
            told = {"license": licence[1]} if licence else {}
            private = self.hub.repositories[name].private
            self.answer(200, {"id": name, "sha": commit, "private": private, "cardData": told})

    def tree(self, name: str, revision: str) -> None:
        if found := self.files(name, revision):
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": _digest(data)}
                for path, data in found[1].items()
            ]
            self.answer(200, json.dumps(listed).encode())

    def resolve(self, name: str, revision: str, path: str) -> None:
        if found := self.files(name, revision):
            commit, files = found
            if path not in files:
                self.answer(404, X_Error_Code="EntryNotFound")
                return
            if self.command == "GET":
                self.hub.downloaded.append(path)
            self.answer(200, files[path], ETag=f'"{_digest(files[path])}"', X_Repo_Commit=commit)

    def do_POST(self) -> None:
        path, data = unquote(urlsplit(self.path).path), self.body()
        if path == "/api/repos/create":
            self.create(json.loads(data))
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.preupload(match[1], json.loads(data))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.batch(match[1], json.loads(data))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(match[1], [json.loads(line) for line in data.splitlines()])
        else:
            self.answer(404, {"error": path})

    def create(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or self.user
        name = f"{owner}/{wanted['name']}"
        if self.user is None:
            self.answer(401, {"error": "Invalid username or password."})
        elif name in self.hub.repositories:
            told = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self.answer(409, told)
        elif owner != self.user:
            self.answer(403, {"error": f"You may not create a model under {owner}"})
        else:
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.hub.add(name, {}, private)
            self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def preupload(self, name: str, wanted: dict[str, Any]) -> None:
        if self.repository(name, writes=True):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE_SUFFIX) else "regular",
                    "shouldIgnore": False,
                }
                for file in wanted["files"]
            ]
            self.answer(200, {"files": modes})

    def batch(self, name: str, wanted: dict[str, Any]) -> None:
        if self.repository(name, writes=True):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/large/{one['oid']}"}}}
                for one in wanted["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})

    def do_PUT(self) -> None:
        data = self.body()
        assert self.path == f"/large/{hashlib.sha256(data).hexdigest()}"
        self.hub.large[self.path.rpartition("/")[2]] = data
        self.answer(200)

    def commit(self, name: str, operations: list[dict[str, Any]]) -> None:
        if (found := self.repository(name, writes=True)) is None:
            return
        files = dict(found.commits[found.main])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        oid = found.commit(files)
        self.answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The one hub that `huggingface_hub` knows, with an empty cache; nobody is logged in."""
    served = Hub()
    served.handler = type("Bound", (Handler,), {"hub": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served.handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ada(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, with ada logged in."""
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    return hub
