"""llama.vim in a real Neovim: what it shows and inserts, and its prefetch requests."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.clients.conftest import CLIENTS
from tests.engine.http_api.running_server import RunningServer, running_server, until

NVIM = CLIENTS.parent / ".editors/neovim/nvim"
PATIENCE_S = 30.0


class Neovim:
    """A Neovim without a terminal, driven through its socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def keys(self, keys: str) -> None:
        await self._remote("--remote-send", keys)

    async def value(self, expression: str) -> str:
        return await self._remote("--remote-expr", expression)

    async def until(self, expression: str, value: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.value(expression) != value:
                await asyncio.sleep(0.05)

    async def _remote(self, *arguments: str) -> str:
        command = [str(NVIM), "--clean", "--server", str(self._socket), *arguments]
        result = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30, check=False
        )
        return (result.stdout + result.stderr).strip()


@asynccontextmanager
async def editing(server: RunningServer, folder: Path) -> AsyncIterator[Neovim]:
    file, socket = folder / "a.py", folder / "nvim.sock"
    file.write_text("def f(x):\n    \n\n\ndef g():\n    pass\n")
    config = f"let g:llama_config = {{'endpoint_fim': '{server.url}/infill', 'show_info': 0}}"
    plugin = f"set runtimepath+={CLIENTS / 'llama.vim'}"
    process = await asyncio.create_subprocess_exec(
        *(NVIM, "--headless", "--clean", "--cmd", config, "--cmd", plugin, "--listen", str(socket), str(file)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        neovim = Neovim(socket)
        await neovim.until("exists('*llama#is_fim_hint_shown')", "1")
        yield neovim
    finally:
        process.kill()
        await process.wait()


async def test_suggestion_is_shown_and_accepted(tmp_path: Path) -> None:
    async with running_server() as server, editing(server, tmp_path) as neovim:
        await neovim.keys("2GA")
        await neovim.keys("return ")
        await neovim.until("llama#is_fim_hint_shown()", "true")
        asked = next(one for one in server.engine.contexts if one.prefix.endswith("    return "))
        assert asked.prefix == "def f(x):\n    return "
        assert asked.suffix == "\n\n\ndef g():\n    pass\n"
        # The plugin prefetches as soon as it has shown a text; an earlier key would end that request.
        contexts = server.engine.contexts
        await until(lambda: any(one.speculative and one.prefix.endswith("return alpha + beta") for one in contexts))
        await neovim.keys("<Tab>")
        await neovim.until("trim(getline(2))", "return alpha + beta")
