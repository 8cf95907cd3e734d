"""The setting `engine.http` in a running server: when its process begins and ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dgemma_lsp.settings.settings import Settings
from tests.lsp.raw_client import raw_client
from tests.lsp.waiting import until

PROGRAM = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); sys.stdin.read()"


async def test_process_follows_the_setting_and_ends_with_the_server(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def command(settings: Settings) -> list[str] | None:
        address = settings.engine_http
        return [sys.executable, "-c", PROGRAM, str(begun), address] if address else None

    def options(address: str) -> dict[str, Any]:
        return {"engine": {"http": address, "model": "tiny"}}

    def addresses() -> list[str]:
        return begun.read_text().split() if begun.exists() else []

    async with raw_client(tmp_path / "record") as client:
        client.server.serve_command = command
        await client.initialize(initializationOptions=options("127.0.0.1:1"))
        await until(lambda: addresses() == ["127.0.0.1:1"])
        client.notify("workspace/didChangeConfiguration", settings=options("127.0.0.1:2"))
        await until(lambda: addresses() == ["127.0.0.1:1", "127.0.0.1:2"])
        client.notify("workspace/didChangeConfiguration", settings=options("my.host:9"))
        await until(lambda: bool(client.sent("window/showMessage")))
        assert "an IP address and a port" in json.dumps(client.sent("window/showMessage"))
        assert (await client.request("shutdown"))["result"] is None
        assert addresses() == ["127.0.0.1:1", "127.0.0.1:2"]
