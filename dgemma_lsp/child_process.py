"""Ends a process that the server started: asked first, killed where it does not end in time."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def end(process: asyncio.subprocess.Process, *, patience_s: float) -> None:
    """Ends a process, and waits for its end; does nothing where it has ended.

    Args:
        process: the child.
        patience_s: seconds until it is killed: small leaves what it has under way half done, large delays the caller.
    """
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
