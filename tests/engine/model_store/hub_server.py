"""A local hub that answers the requests of `huggingface_hub` and can fail in several ways."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

REPO = "owner/model"
COMMIT = "a" * 40


@dataclass
class HubServer:
    """State of the server.

    Attributes:
        files: contents of the files of the only repository, by path.
        commit: the commit of every revision but `nothing`.
        breaks_after: number of bytes of a body after which the connection ends, once.
        holds_after: number of bytes of a body after which the server pauses until `released` is set; None for no pause.
        released: see `holds_after`.
        status: status code of every answer in place of the right one; 0 for none.
        headers: further headers of that answer.
        token: the token that requests must carry; empty for none.
        wrong: paths whose content differs from the hub's description.
        requests: method, path and range of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    commit: str = COMMIT
    breaks_after: int | None = None
    holds_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    token: str = ""
    wrong: set[str] = field(default_factory=set[str])
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def describe(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                **(
                    {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}}
                    if path.endswith((".safetensors", ".gguf"))
                    else {}
                ),
            }
            for path, content in self.files.items()
        ]
        return {"id": REPO, "sha": self.commit, "siblings": siblings, "cardData": {"license": "apache-2.0"}}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    state = HubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

        def do_HEAD(self) -> None:
            self.answer(has_body=False)

        def do_GET(self) -> None:
            self.answer(has_body=True)

        def answer(self, *, has_body: bool) -> None:
            path = self.path.partition("?")[0]
            state.requests.append((self.command, path, self.headers.get("Range", "")))
            if state.status:
                self.send(state.status, b"", state.headers, has_body=has_body)
            elif path.startswith("/moved"):
                # Files on another host have a signed address and need no token.
                self.content(path.removeprefix("/moved/"), has_body=has_body)
            elif state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                self.send(401, b"", {"X-Error-Code": "RepoNotFound"}, has_body=has_body)
            elif path.startswith("/api/models/"):
                self.info(path, has_body=has_body)
            else:
                self.resolve(path, has_body=has_body)

        def info(self, path: str, *, has_body: bool) -> None:
            name = path.removeprefix("/api/models/")
            if not name.startswith(REPO):
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, has_body=has_body)
            elif name.endswith("/nothing"):
                self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, has_body=has_body)
            else:
                body = json.dumps(state.describe()).encode()
                self.send(200, body, {"Content-Type": "application/json"}, has_body=has_body)

        def resolve(self, path: str, *, has_body: bool) -> None:
            name = path.split("/resolve/")[-1].partition("/")[2]
            if name not in state.files:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, has_body=has_body)
                return
            content = state.files[name]
            large = name.endswith((".safetensors", ".gguf"))
            etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
            headers = {"X-Repo-Commit": state.commit, "ETag": f'"{etag}"'}
            if large:
                # Large files are on another host.
                elsewhere = state.url.replace("127.0.0.1", "localhost")
                headers |= {"X-Linked-Size": f"{len(content)}", "X-Linked-Etag": f'"{etag}"'}
                self.send(302, b"", headers | {"Location": f"{elsewhere}/moved/{name}"}, has_body=has_body)
            elif has_body:
                self.content(name, has_body=True, headers=headers)
            else:
                self.send(200, content, headers, has_body=False)

        def content(self, name: str, *, has_body: bool, headers: dict[str, str] | None = None) -> None:
            content = state.files[name]
            if name in state.wrong:
                content = bytes(len(content))
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = headers or {}
            if start:
                headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.send(206 if start else 200, content[start:], headers, has_body=has_body)

        def send(self, status: int, body: bytes, headers: dict[str, str], *, has_body: bool) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": f"{len(body)}"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if not has_body:
                return
            limit = state.breaks_after
            with suppress(OSError):
                if (held := state.holds_after) is not None and len(body) > held:
                    self.wfile.write(body[:held])
                    self.wfile.flush()
                    state.released.wait(60)
                    self.close_connection = True
                elif limit is not None and len(body) > limit:
                    state.breaks_after = None
                    self.wfile.write(body[:limit])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
