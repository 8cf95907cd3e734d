"""Processes that the server starts: runs one and reads its output by lines; ends one with SIGTERM, then SIGKILL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress


class ProcessFailed(Exception):
    """A child process failed; the message is one sentence for the user."""


async def run(command: Sequence[str], on_line: Callable[[bytes], None], *, name: str, patience_s: float) -> None:
    """Runs a subcommand of `dgemma-engine` to its end. Cancelling the caller ends the process.

    Args:
        command: program, subcommand and arguments.
        on_line: called with each line of its standard output.
        name: program and subcommand, for the user.
        patience_s: see `end`.

    Raises:
        ProcessFailed: the program cannot be started, or it failed: the message is the last line of its standard error.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise ProcessFailed(cannot_run(command[0], error)) from error
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        async for line in process.stdout:
            on_line(line)
        code = await process.wait()
        if code:
            raise ProcessFailed(last_line(await errors) or f"{ended(name, code)}; try again")
    finally:
        errors.cancel()
        await end(process, patience_s=patience_s)


async def end(process: asyncio.subprocess.Process, *, patience_s: float) -> None:
    """Ends a process that still runs, and waits for its end.

    Args:
        process: the child.
        patience_s: seconds from SIGTERM to SIGKILL: small interrupts work it could finish, large delays the caller.
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


def cannot_run(program: str, error: OSError) -> str:
    """Returns the sentence for a program that could not be started."""
    return f"{program} cannot be run ({error.strerror}); install dgemma-lsp again"


def ended(name: str, code: int) -> str:
    """Returns the first half of the sentence for a program that ended and wrote no reason."""
    return f"{name} ended with exit code {code}"


def last_line(errors: bytes) -> str:
    """Returns the last line of what `dgemma-engine` wrote to standard error, without its name; empty for no line."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("dgemma-engine: ") if lines else ""
