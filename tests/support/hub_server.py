"""A hub on this machine: the part of huggingface.co's protocol that a download uses, and its failures."""

import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD_TOKEN = "hf_good"
STRANGER_TOKEN = "hf_stranger"  # known, but the licence is not accepted
_SMALL = 1000  # bytes below which git holds a file itself, and the hub serves it without a redirect


@dataclass
class Request:
    """One request, as the server saw it."""

    method: str
    path: str
    range: str
    authorised: bool


@dataclass
class Hub:
    """What the hub holds and how it misbehaves."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut_after: list[int] = field(default_factory=list)  # bytes after which each next transfer is cut
    corrupt: set[str] = field(default_factory=set)  # file names served with a wrong byte
    seconds_per_piece: float = 0.0
    piece: int = 1 << 20
    stalls: int = 0  # how many transfers stop without closing
    status: int = 0  # answer to everything
    retry_after: dict[str, list[str]] = field(default_factory=dict)  # path's end → 429 with these, in turn
    terse: bool = False  # listings without sizes and checksums
    unlisted: set[str] = field(default_factory=set)  # listed by the API, absent when asked for
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    content_url: str = ""

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        content = [r.path for r in self.requests if r.method == "GET" and "/resolve/" in r.path]
        return [path.rpartition(f"/{COMMIT}/")[2] for path in content]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range", ""), bool(token)))
        if self.hub.status:
            self._refuse(self.hub.status)
        elif waits := next((w for end, w in self.hub.retry_after.items() if path.endswith(end) and w), []):
            self._send(429, b"{}", {"Retry-After": waits.pop(0)})
        elif token not in ("", GOOD_TOKEN, STRANGER_TOKEN):
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path):
            self._list(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[3], token)
        elif match := re.fullmatch(r"/content/([^/]+/[^/]+)/(.+)", path):
            self._send_file(match[2], self.hub.repositories[match[1]][match[2]])
        else:
            self._refuse(404)

    def _list(self, repository: str) -> None:
        if repository not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
            return
        siblings = []
        for name, data in self.hub.repositories[repository].items():
            entry: dict[str, object] = {"rfilename": name}
            if not self.hub.terse:
                entry |= {"size": len(data), "blobId": _git_id(data)}
            if len(data) >= _SMALL and not self.hub.terse:
                entry["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        content = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
        body = json.dumps(content | {"private": False, "downloads": 0, "likes": 0}).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, repository: str, name: str, token: str) -> None:
        if repository in self.hub.gated and token != GOOD_TOKEN:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {repository} is restricted")
            return
        data = self.hub.repositories.get(repository, {}).get(name)
        if data is None or name in self.hub.unlisted:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_id(data)}"'}
        if len(data) < _SMALL:
            self._send_file(name, data, headers)
            return
        headers |= {
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": f'"{_sha256(data)}"',
            "Location": f"{self.hub.content_url}/content/{repository}/{name}",
        }
        self._send(302, b"", headers)

    def _send_file(self, name: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if name in self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), {k: v for k, v in headers.items() if v})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        big = len(body) >= _SMALL and status in (200, 206) and "Content-Type" not in headers
        cut = self.hub.cut_after.pop(0) if big and self.hub.cut_after else None
        stall = big and self.hub.stalls > 0
        if stall:
            self.hub.stalls -= 1
            cut = _SMALL // 2
        try:
            self._send_pieces(body if cut is None else body[:cut])
            if stall:
                time.sleep(3)
        except OSError:
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def _send_pieces(self, body: bytes) -> None:
        for start in range(0, len(body), self.hub.piece):
            self.wfile.write(body[start : start + self.hub.piece])
            self.wfile.flush()
            if self.hub.seconds_per_piece and len(body) > self.hub.piece:
                time.sleep(self.hub.seconds_per_piece)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Runs the hub and, on a second address as in reality, the store of its big files."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.content_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
