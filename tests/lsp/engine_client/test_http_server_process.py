"""`engine.http`: the command that the settings give, and the process that is kept running."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from dgemma_lsp.engine_client.http_server_process import PORT_IN_USE, HttpServerProcess, serve_command
from dgemma_lsp.settings.settings import Settings
from tests.lsp.waiting import until

# Appends a line to the file when it begins, and one when its standard input closes.
PROGRAM = "import sys; a = lambda x: open(sys.argv[1], 'a').write(x + '\\n'); a('begun'); sys.stdin.read(); a('ended')"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(engine_http="127.0.0.1:0", enabled=False),
        Settings(engine_http="127.0.0.1:0", engine_autostart=False),
    ],
)
def test_settings_that_serve_nothing(settings: Settings) -> None:
    assert serve_command(settings) is None


def test_command_has_address_model_and_device() -> None:
    command = serve_command(Settings(engine_http="127.0.0.1:9", engine_model="tiny", engine_device="cpu"))
    assert command is not None
    assert command[3:] == [
        *("dgemma_engine", "serve", "--end-with-input", "--http", "127.0.0.1:9"),
        *("--model", "tiny", "--device", "cpu"),
    ]


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("127.0.0.1:8012", True),
        ("[::1]:9", True),
        ("localhost", True),
        ("", True),
        ("my.host:9", False),
        ("8012", False),
    ],
)
def test_setting_takes_addresses(address: str, *, is_one: bool) -> None:
    if is_one:
        assert Settings(engine_http=address).engine_http == address
    else:
        with pytest.raises(ValueError, match="an IP address and a port"):
            Settings(engine_http=address)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def test_process_is_started_once_replaced_and_ended(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    server = HttpServerProcess([].append)
    command = [sys.executable, "-c", PROGRAM, str(first)]
    server.configure(command)
    server.configure(list(command))
    await until(lambda: lines(first) == ["begun"])
    server.configure([sys.executable, "-c", PROGRAM, str(second)])
    await until(lambda: lines(second) == ["begun"])
    await server.close()
    assert (lines(first), lines(second)) == (["begun"], ["begun"])
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_process_that_cannot_serve_is_reported_with_its_reason_and_started_again() -> None:
    warnings: list[str] = []
    server = HttpServerProcess(warnings.append, pause_s=0.01)
    server.configure([sys.executable, "-c", "import sys; sys.exit('dgemma-engine: no key')"])
    await until(lambda: len(warnings) == 2)
    await server.close()
    assert set(warnings) == {"dgemma.engine.http: no key"}


async def test_command_that_is_not_there_is_reported() -> None:
    warnings: list[str] = []
    server = HttpServerProcess(warnings.append)
    server.configure(["/nowhere/python"])
    await until(lambda: len(warnings) == 1)
    await server.close()
    assert warnings == [
        "dgemma.engine.http: /nowhere/python cannot be run (No such file or directory); install dgemma-lsp again"
    ]


async def test_port_that_is_in_use_is_tried_again_and_no_warning(tmp_path: Path) -> None:
    record = tmp_path / "record"
    program = f"import sys; open(sys.argv[1], 'a').write('tried\\n'); sys.exit({PORT_IN_USE})"
    warnings: list[str] = []
    server = HttpServerProcess(warnings.append, pause_s=0.01)
    server.configure([sys.executable, "-c", program, str(record)])
    await until(lambda: len(lines(record)) >= 2)
    await server.close()
    assert warnings == []
