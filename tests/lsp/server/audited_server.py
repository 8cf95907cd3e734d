"""The real server on stdio; standard error goes to one file, and sockets, written files and processes to another.

`python audited_server.py AUDIT_FILE STDERR_FILE`
"""

from __future__ import annotations

import os
import sys
from typing import Any

WATCHED = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.system", "os.rename", "os.mkdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main() -> int:
    sys.dont_write_bytecode = True
    audit, errors = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in sys.argv[1:3])
    os.dup2(errors, 2)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            # A number is a descriptor: its file was noted when that was opened.
            if flags & WRITING and not isinstance(path, int):
                os.write(audit, f"write {path}\n".encode())
        elif event.startswith(WATCHED):
            shown = [str(argument) for argument in arguments if isinstance(argument, str | int | tuple)]
            os.write(audit, f"{event} {' '.join(shown)}\n".encode())

    sys.addaudithook(note)
    from dgemma_lsp.cli import main as serve

    return serve([])


sys.exit(main())
