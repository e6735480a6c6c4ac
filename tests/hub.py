"""A small hub on loopback that speaks what huggingface_hub and datasets ask of the real one, and can misbehave."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.patience import PATIENCE

Files = dict[str, bytes]

#: Kept outside of git on the hub: known by their sha256.
LARGE = (".parquet", ".gz", ".tar", ".zip", ".safetensors")
CHUNK = 1 << 14


def is_large(path: str) -> bool:
    return path.endswith(LARGE) or re.search(r"\.(gz|part)-\d+$", path) is not None


@functools.lru_cache(maxsize=4096)  # each listing names all files
def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_of(repo: str, files: Files) -> str:
    listing = json.dumps([repo, sorted((path, git_blob(content)) for path, content in files.items())])
    return hashlib.sha1(listing.encode()).hexdigest()


@dataclass
class Hub:
    """What the hub holds and how it misbehaves; what it was asked for.

    Attributes:
        breaks: path → how many times its download breaks off in the middle.
        altered: paths whose content arrives with one byte changed.
        lengthened: paths whose content arrives with one byte more.
        without_ranges: paths that are sent whole, whatever part is asked for.
        failing: path → status codes that its next requests get.
        retry_after: seconds that a client is asked to wait then; "": it isn't asked.
        gated, hidden: repositories that need a token with access, or any token.
        gated_files: repositories whose metadata everybody may read, and whose files nobody.
        redirects: large files are sent from another host name, as from a content network; what it was asked is kept.
        stall: path → after how many bytes its download stops until `stall` is cleared.
        before_sending: path → what happens just before it is sent.
        asked: method and path of the address → requests.
        served, downloads: path (of a data file: repository:path) → bytes sent of it, and requests for it.
        broken, resumed: downloads that broke off; requests for a rest.
        unknown: requests for what the real hub has and this one doesn't.
    """

    repos: dict[str, dict[str, Files]] = field(default_factory=dict)  # repo → commit → files
    heads: dict[str, str] = field(default_factory=dict)
    breaks: Counter[str] = field(default_factory=Counter)
    altered: set[str] = field(default_factory=set)
    lengthened: set[str] = field(default_factory=set)
    without_ranges: set[str] = field(default_factory=set)
    failing: dict[str, list[int]] = field(default_factory=dict)
    retry_after: str = ""
    gated: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    gated_files: set[str] = field(default_factory=set)
    redirects: bool = False
    tokens_elsewhere: list[str] = field(default_factory=list)
    stall: dict[str, int] = field(default_factory=dict)
    before_sending: dict[str, Callable[[], None]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    downloads: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    resumed: int = 0
    unknown: list[str] = field(default_factory=list)
    _stalled: threading.Event = field(default_factory=threading.Event)

    def wait_for_stall(self) -> None:
        """Until a download has come to where it stalls."""
        assert self._stalled.wait(PATIENCE), "no download came to where it should stall"

    def stall_at(self, path: str, position: int) -> None:
        while path in self.stall and position >= self.stall[path]:
            self._stalled.set()
            time.sleep(0.02)

    def push(self, repo: str, files: Files) -> str:
        """A new commit that holds exactly `files`; becomes `main`."""
        commit = commit_of(repo, files)
        self.repos.setdefault(repo, {})[commit] = dict(files)
        self.heads[repo] = commit
        return commit

    def content(self, repo: str, path: str) -> bytes:
        return self.repos[repo][self.heads[repo]][path]


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serve on a free port of loopback; gives the endpoint's URL."""
    with open_server() as server:
        server.hub = hub
        yield server.url


@contextmanager
def open_server() -> Iterator[Server]:
    """A server on a free port of loopback; a connection is to the hub that it has when the connection begins."""
    server = Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Server(ThreadingHTTPServer):
    hub: Hub
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that are killed, or hang up, are part of it
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.hub = self.server.hub

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._body = self.rfile.read(length)
        self._answer()

    def _answer(self) -> None:
        url = urllib.parse.urlparse(self.path.removeprefix("/elsewhere"))
        elsewhere = self.path.startswith("/elsewhere")
        if elsewhere and "Authorization" in self.headers:
            self.hub.tokens_elsewhere.append(self.path)
        path, query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        self.hub.asked[f"{self.command} {path}"] += 1
        if found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*found.groups(), elsewhere)
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            return self._tree(found[1], found[2], found[3] or "", "recursive" in query)
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/paths-info/([^/]+)", path):
            return self._paths_info(found[1], found[2])
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._info(found[1], found[2] or "main", "blobs" in query)
        self.hub.unknown.append(f"{self.command} {self.path}")
        return self._error(404, "", "unknown endpoint")

    def _files(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """The commit and its files; answers with the hub's error otherwise."""
        if self.hub.failing.get(repo):
            self._error(self.hub.failing[repo].pop(0), "", "try again")
            return None
        has_token = "Authorization" in self.headers
        if repo in self.hub.gated:
            self._error(403 if has_token else 401, "GatedRepo", f"Access to {repo} is restricted")
            return None
        if repo not in self.hub.repos or (repo in self.hub.hidden and not has_token):
            self._error(404 if has_token else 401, "RepoNotFound", "Repository not found")
            return None
        commit = self.hub.heads[repo] if revision == "main" else revision
        if commit not in self.hub.repos[repo]:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, self.hub.repos[repo][commit]

    def _info(self, repo: str, revision: str, blobs: bool) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        commit, files = found
        siblings = [_sibling(path, content) if blobs else {"rfilename": path} for path, content in files.items()]
        self._json({"id": repo, "sha": commit, "private": False, "gated": False, "tags": [], "siblings": siblings})

    def _tree(self, repo: str, revision: str, folder: str, recursive: bool) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, content in found[1].items():
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts)):
                if recursive or depth == 1:
                    name = prefix + "/".join(parts[:depth])
                    entries[name] = {"type": "directory", "path": name, "size": 0, "oid": git_blob(name.encode())}
            if recursive or len(parts) == 1:
                entries[path] = _entry(path, content)
        if not entries and folder:
            return self._error(404, "EntryNotFound", f"{folder} does not exist")
        return self._json(list(entries.values()))

    def _paths_info(self, repo: str, revision: str) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(self._body)["paths"] if is_json else urllib.parse.parse_qs(self._body.decode())["paths"]
        asked = [asked] if isinstance(asked, str) else asked
        entries = [_entry(path, found[1][path]) for path in asked if path in found[1]]
        for path in asked:
            if path not in found[1] and any(one.startswith(path.rstrip("/") + "/") for one in found[1]):
                entries.append({"type": "directory", "path": path, "size": 0, "oid": git_blob(path.encode())})
        self._json(entries)

    def _resolve(self, repo: str, revision: str, path: str, elsewhere: bool) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        commit, files = found
        if repo in self.hub.gated_files:
            return self._error(401, "GatedRepo", f"Access to {repo} is restricted")
        if self.hub.redirects and not elsewhere and is_large(path) and self.command == "GET":
            return self._redirect()
        if self.hub.failing.get(path) and self.command == "GET":
            return self._error(self.hub.failing[path].pop(0), "", "try again")
        if path not in files:
            return self._error(404, "EntryNotFound", f"{path} does not exist")
        content = files[path] + b"x" * (path in self.hub.lengthened)
        start = 0
        if path not in self.hub.without_ranges and (
            span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        ):
            start = int(span[1])
            self.hub.resumed += 1
        etag = _sha256(content) if is_large(path) else git_blob(content)
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        if is_large(path):
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.hub.downloads[path] += 1
            self._send(path, content, start)

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/elsewhere{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, path: str, content: bytes, start: int) -> None:
        if path in self.hub.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        end = len(content)
        if self.hub.breaks[path] > 0:
            self.hub.breaks[path] -= 1
            self.hub.broken += 1
            end = start + max(1, (end - start) // 2)
        if path in self.hub.before_sending:
            self.hub.before_sending[path]()
        for position in range(start, end, CHUNK):
            self.hub.stall_at(path, position)
            chunk = content[position : min(end, position + CHUNK)]
            self.wfile.write(chunk)
            self.hub.served[path] += len(chunk)
        if end < len(content):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        if status == 429 and self.hub.retry_after:
            self.send_header("Retry-After", self.hub.retry_after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@functools.lru_cache(maxsize=4096)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lfs(content: bytes) -> dict[str, Any]:
    return {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    entry = {"rfilename": path, "size": len(content), "blobId": git_blob(content)}
    return entry | ({"lfs": _lfs(content)} if is_large(path) else {})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    if is_large(path):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry
