"""Runs filled files with their tests, each in a process of its own that `confinement` limits. `Task` in, verdict out.

A file passes if it runs to its end: the last thing it does is to send a secret through a pipe, so that an early exit is
no pass. Its other output is not read.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import EngineError
from dgemma_engine.tools.evaluation.holes.task import Task, UnitTest
from dgemma_engine.tools.evaluation.sandbox import confinement

WARNING = (
    "--execute runs programs that a model wrote. They get no network, no further processes and no writing to files, "
    "but they can read what you can read; use a container or a user of its own if that matters."
)
# Each must fail where confinement works; the probe runs them before anything else is run.
_FORBIDDEN = (
    "import socket\nsocket.socket()",
    "import os\nif not os.fork(): os._exit(0)",
    "open('written', 'w')",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: until it is killed; small fails slow but correct answers.
        num_bytes: of address space.
    """

    seconds: int = 5
    num_bytes: int = 2**30

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise ValueError(f"{self.seconds=} must be at least 1")
        if self.num_bytes < 2**26:
            raise ValueError(f"{self.num_bytes=} must be at least 64 MiB: Python itself needs some")


class Executor:
    """Runs tests of filled holes.

    Args:
        limits: for each.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def probe(self) -> None:
        """Makes sure that programs are confined on this machine.

        Raises:
            EngineError: it does not, so nothing may be run.
        """
        if not self._runs_to_its_end("pass"):
            raise EngineError("--execute: programs cannot be confined here; it needs Linux 5.13 with Landlock enabled")
        if any(self._runs_to_its_end(program) for program in _FORBIDDEN):
            raise EngineError("--execute: programs are not confined on this machine; leave the option out")

    def passes(self, task: Task, text: str) -> bool | None:
        """Returns whether the file with `text` in the hole passes its test; None if there is no test."""
        if task.test is None:
            return None
        return self._runs_to_its_end(_program(task.filled(text), task.test))

    def _runs_to_its_end(self, program: str) -> bool:
        secret = secrets.token_hex(8)
        reader, writer = os.pipe()
        try:
            self._run(f"{program}\n__import__('os').write({writer}, b'{secret}')\n", writer)
            os.set_blocking(reader, False)
            return os.read(reader, 2 * len(secret)) == secret.encode()
        except BlockingIOError:
            return False
        finally:
            os.close(reader)
            os.close(writer)

    def _run(self, program: str, writer: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dgemma-eval-") as folder:
            file, empty = Path(folder, "program.py"), Path(folder, "empty")
            file.write_bytes(program.encode("utf-8", "surrogatepass"))
            empty.mkdir()
            command = [sys.executable, "-I", "-S", confinement.__file__]
            try:
                subprocess.run(
                    [*command, str(self._limits.seconds), str(self._limits.num_bytes), str(file)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=empty,
                    env={"LC_ALL": "C.UTF-8", "HOME": str(empty), "TMPDIR": str(empty)},
                    pass_fds=[writer],
                    # Without a terminal to write into; it is alone in its session, since it cannot fork.
                    start_new_session=True,
                    timeout=self._limits.seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return


def _program(filled: str, test: UnitTest) -> str:
    """Puts file and test together as the published evaluation does."""
    return f"{filled}\n{test.code}\ncheck({test.entry_point})"
