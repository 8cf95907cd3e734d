"""A package index on this machine, and a wheel that holds a small model, as fixtures for several folders of tests."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dgemma_engine.model_store.entry import Entry, ModelFile, Wheel

MODEL = b"GGUF" + bytes(range(256)) * 2_000


@dataclass(slots=True)
class Index:
    """What the server sends.

    Attributes:
        files: by path; what is not here is answered with 404.
        types: content type of a path, where it is not plain HTML.
        breaks_after: bytes of a body after which the connection ends, once.
        knows_ranges: whether a request for a range of bytes is answered with that range.
        holds_after: bytes of a body after which the connection is silent until `released` is set; None for no hold.
        released: see `holds_after`.
        password: base64 of the user and password that are asked for; empty asks for none.
        requests: path and range of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    breaks_after: int | None = None
    knows_ranges: bool = True
    holds_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    password: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def put(self, wheel: Wheel, content: bytes, *, json: bool = False) -> None:
        self.files[f"/files/{wheel.filename}"] = content
        page, link = f"/simple/{wheel.project}/", f"../../files/{wheel.filename}"
        if json:
            self.types[page] = "application/vnd.pypi.simple.v1+json"
            self.files[page] = f'{{"files": [{{"filename": "{wheel.filename}", "url": "{link}"}}]}}'.encode()
        else:
            self.files[page] = f'<a href="{link}#sha256={wheel.sha256}">{wheel.filename}</a>'.encode()


@pytest.fixture
def index() -> Iterator[Index]:
    state = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.requests.append((self.path, asked))
            if state.password and self.headers.get("Authorization") != f"Basic {state.password}":
                self.send_error(401)
                return
            if self.path not in state.files:
                self.send_error(404)
                return
            body, start = state.files[self.path], 0
            if asked and state.knows_ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", state.types.get(self.path, "text/html"))
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if state.breaks_after is not None and self.path.startswith("/files/"):
                body, state.breaks_after = body[: start + state.breaks_after], None
            with suppress(ConnectionError):
                if state.holds_after is not None and self.path.startswith("/files/"):
                    self.wfile.write(body[start : start + state.holds_after])
                    start += state.holds_after
                    state.released.wait(60)
                self.wfile.write(body[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.released.set()
        server.shutdown()
        thread.join()


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Made:
    entry: Entry
    wheel: Wheel
    content: bytes


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A wheel that pip accepts, and the entry that asks for it."""
    path, info = tmp_path / "built.whl", "small_model-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small_model/m.gguf", MODEL)
        archive.writestr("small_model/__init__.py", "raise SystemExit('nothing of a wheel is run')")
        archive.writestr(f"{info}/LICENSE", "terms")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    content = path.read_bytes()
    path.unlink()
    wheel = Wheel(
        project="small-model",
        version="0.1",
        filename="small_model-0.1-py3-none-any.whl",
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        model="small_model/m.gguf",
        model_bytes=len(MODEL),
        model_sha256=hashlib.sha256(MODEL).hexdigest(),
        licence=f"{info}/LICENSE",
    )
    entry = Entry(
        name="little", title="a test", num_bytes=len(MODEL), licence="Apache-2.0", memory_bytes=1, wheels=(wheel,),
        file=ModelFile(name="m.gguf", sha256=wheel.model_sha256),
    )  # fmt: skip
    return Made(entry, wheel, content)
