"""A real Neovim, the real server, and a real engine under `dgemma-engine serve` with TLS, a key and `engine.url`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.editors.conftest import engines
from tests.editors.neovim.conftest import Start
from tests.editors.neovim.test_denoise import drawn
from tests.editors.neovim.test_ghost_text import AREA

KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    settings: Mapping[str, str]
    runtime: Path

    @property
    def place(self) -> str:
        return self.settings["url"].removeprefix("https://")


@contextmanager
def serving(folder: Path, *options: str | Path) -> Generator[subprocess.Popen[str]]:
    """`dgemma-engine serve` with an engine of its own, on any free port of this machine."""
    command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--model", "tiny", "--http", "127.0.0.1:0"]
    environ = os.environ | {"DGEMMA_RUNTIME_DIR": str(folder / "rt"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *options], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        for engine in engines(folder / "rt"):
            with suppress(ProcessLookupError):
                os.kill(engine.pid, signal.SIGTERM)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    """An engine that can be reached by HTTPS only; its runtime folder is not that of the server under test."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "tls-key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "key").write_text(f"kim {KEY}\n")
    options = ["--api-key-file", folder / "key", "--tls-cert", folder / "cert.pem"]
    with serving(folder, *options, "--tls-key", folder / "tls-key.pem") as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        yield Elsewhere(
            settings={"url": url, "keyFile": str(folder / "key"), "caFile": str(folder / "ca.pem")},
            runtime=folder / "rt",
        )


def test_ghost_text_and_drafts_come_from_elsewhere(start: Start, elsewhere: Elsewhere, runtime: Path) -> None:
    before = {engine.pid for engine in engines(runtime)}
    window = start(AREA, settings={"engine": dict(elsewhere.settings)})
    window.keys("Go")
    window.type("print(area(", keys_per_s=8)
    ghost = window.see_ghost("width, height))")
    assert window.lua("return require('dgemma.status').text(0)").endswith(f" @{elsewhere.place}")
    seen: list[str] = []
    window.lua("vim.cmd.DgemmaDenoise()")

    def ended() -> bool:
        seen.append(drawn(window))
        return "offered after" in seen[-1]

    window.until(ended, about="what is offered")
    assert any(re.search(r"step \d+/\d+", each) for each in seen), seen
    assert seen[-1].startswith(f"{ghost}:DgemmaSettled| offered after ")
    assert {engine.pid for engine in engines(runtime)} == before, "no engine was started here"


def test_lines_that_serve_prints_are_pasted_and_work(start: Start, neovim: Path, tmp_path: Path) -> None:
    """A shell stores the key; the window starts with the options that the other line passes to `setup`."""
    (home := tmp_path / "home").mkdir()
    with serving(tmp_path, "--share") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(13)]
        subprocess.run(
            ["sh", "-c", next(line for line in lines if "umask" in line)], env={"HOME": str(home)}, check=True
        )
        (script := tmp_path / "paste.lua").write_text(
            "package.loaded.dgemma = { setup = function(given) io.write(vim.json.encode(given)) end }\n"
            + next(line for line in lines if "require('dgemma')" in line)
        )
        given = json.loads(subprocess.run([neovim, "-l", script], capture_output=True, text=True, check=True).stdout)
        window = start(AREA, environment={"HOME": str(home)}, **given)
        window.keys("Go")
        window.type("print(area(", keys_per_s=8)
        window.see_ghost("width, height))")
        place = given["settings"]["engine"]["url"].removeprefix("http://")
        assert window.lua("return require('dgemma.status').text(0)").endswith(f" @{place}")


def test_wrong_key_is_a_sentence_in_the_status(start: Start, elsewhere: Elsewhere, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("f" * 32)
    window = start(AREA, settings={"engine": dict(elsewhere.settings) | {"keyFile": str(tmp_path / "wrong")}})
    window.keys("Go")
    window.type("print(area(", keys_per_s=8)
    last = "return (require('dgemma.status').last(vim.lsp.get_clients({ bufnr = 0 })[1].id) or {}).message"
    window.until(lambda: "does not accept the key" in (window.lua(last) or ""))
    window.no_ghost()
    assert window.said() == [], "a state is no error"
