"""Neovims for tests: installed once, each with folders of its own, ended with the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.editors.conftest import ROOT
from tests.editors.get_neovim import install
from tests.editors.neovim.window import Window

SERVER = [sys.executable, "-m", "dgemma_lsp"]

Start = Callable[..., Window]


@pytest.fixture(scope="session")
def neovim() -> Path:
    """The path of the program."""
    return install(ROOT / ".editors/neovim")


@pytest.fixture
def start(neovim: Path, editor_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a Neovim: `start(text or path, **options)`; a text is put into a file first."""
    with ExitStack() as stack:
        count = 0

        def start_one(
            content: str | bytes | Path = "",
            *,
            name: str = "a.py",
            environment: Mapping[str, str] = {},
            wait: bool = True,
            **options: Any,
        ) -> Window:
            nonlocal count
            count += 1
            path = content if isinstance(content, Path) else tmp_path / name
            if not isinstance(content, Path):
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            whole = {name: value for name, value in ({"cmd": SERVER} | options).items() if value is not None}
            folder = tmp_path / f"nvim{count}"
            window = Window(neovim, folder, {**editor_environment, **environment}, whole, [path])
            stack.enter_context(window)
            if wait:
                window.attached()
            return window

        yield start_one


class Record:
    """The messages that a scripted server has received, from its file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def params(self, method: str) -> list[dict[str, Any]]:
        """Returns the parameters of every message of that method."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        messages = [line.split(" ", maxsplit=1) for line in lines]
        return [json.loads(params) for name, params in messages if name == method]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """The record of the scripted server of this test."""
    return Record(tmp_path / "record")


@pytest.fixture
def scripted(start: Start, record: Record) -> Start:
    """Starts a Neovim on a server that answers by its script: `scripted(text, script={...})`."""
    program = Path(__file__).with_name("scripted_server.py")

    def start_one(content: str | bytes = "", *, script: Mapping[str, Any], **options: Any) -> Window:
        return start(content, cmd=[sys.executable, str(program), json.dumps(script), str(record.path)], **options)

    return start_one
