"""The doctor with an engine on another machine: it queries that engine, and checks none on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgemma_lsp.commands.arguments import argument_parser
from dgemma_lsp.commands.checks.finding import Severity
from dgemma_lsp.commands.doctor import examine, is_usable
from dgemma_lsp.settings.settings import Settings
from tests.engine.http_api.running_server import running_server


async def test_engine_that_answers_is_named_with_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "rt"))
    async with running_server() as server:
        findings = await examine(Settings(engine_url=server.url))
    assert is_usable(findings)
    assert findings[-1].detail == f"fake on cpu, at 127.0.0.1:{server.port}, version 0+unknown"
    assert [finding.name for finding in findings] == ["python", "server", "engine"]


@pytest.mark.parametrize(
    ("url", "detail", "remedy"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9 refuses connections", "start there: dgemma-engine serve"),
        (
            "https://gpu.invalid",
            "gpu.invalid is not found: the network is down, or engine.url names another host than it should",
            "check both",
        ),
        ("ftp://x", "engine.url is no URL of HTTP", "write one such as https://gpu.example:8012"),
    ],
)
async def test_engine_that_cannot_be_reached_fails_with_its_remedy(url: str, detail: str, remedy: str) -> None:
    findings = await examine(Settings(engine_url=url))
    assert not is_usable(findings)
    assert (findings[-1].verdict, findings[-1].detail, findings[-1].remedy) == (Severity.FAIL, detail, remedy)


def test_relative_key_file_of_a_command_is_resolved_against_the_current_folder() -> None:
    """In a setting, a relative path would depend on the folder that an editor has opened, and is refused."""
    parser = argument_parser()
    for given, taken in (("key", str(Path.cwd() / "key")), ("/a/key", "/a/key"), ("~/key", "~/key"), ("", "")):
        arguments = parser.parse_args(["doctor", "--key-file", given, "--ca-file", given])
        assert (arguments.key_file, arguments.ca_file) == (taken, taken)
