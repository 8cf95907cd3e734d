"""Limits of an untrusted program; without confinement each case would pass, or never end."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dgemma_engine.errors import EngineError
from dgemma_engine.tools.evaluation.holes.task import Task, UnitTest
from dgemma_engine.tools.evaluation.sandbox import confinement
from dgemma_engine.tools.evaluation.sandbox.confinement import seccomp_filter
from dgemma_engine.tools.evaluation.sandbox.execution import Executor, Limits

from tests.engine.tools.evaluation.kernel import needs_confinement

HOLE = Task(
    task_id="1",
    kind="line",
    language="python",
    prefix="def double(x):\n",
    middle="    return x + x",
    suffix="\n",
    test=UnitTest(code="def check(candidate):\n    assert candidate(2) == 4\n", entry_point="double"),
)
SECONDS = 3


@pytest.fixture(scope="module")
def executor() -> Executor:
    executor = Executor(Limits(seconds=SECONDS, num_bytes=2**28))
    executor.probe()
    return executor


def body(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code).strip() + "\nreturn x + x", "    ")


@pytest.fixture
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@needs_confinement
def test_a_right_answer_passes_and_a_wrong_one_does_not(executor: Executor) -> None:
    assert executor.passes(HOLE, HOLE.middle) is True
    assert executor.passes(HOLE, "    return x * x * x") is False
    assert executor.passes(HOLE, "    return (") is False
    assert executor.passes(HOLE, "\ud800") is False
    assert executor.passes(Task(task_id="1", kind="line", prefix="", middle="", suffix=""), "") is None


@needs_confinement
@pytest.mark.parametrize(
    "code",
    [
        "import math, re, json, hashlib, collections",
        "import threading; t = threading.Thread(target=int); t.start(); t.join()",
        "print('x' * 100_000)",
        "import asyncio; asyncio.run(asyncio.sleep(0))",
        "b'x' * 2**26",
    ],
)
def test_ordinary_operations_are_allowed(code: str, executor: Executor) -> None:
    assert executor.passes(HOLE, body(code)) is True


@needs_confinement
@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "import os; os.close(3); [os.close(fd) for fd in range(4, 50)]",
    ],
)
def test_early_exit_does_not_pass(code: str, executor: Executor) -> None:
    assert executor.passes(HOLE, body(code)) is False


@needs_confinement
@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_endless_program_is_ended(code: str, executor: Executor) -> None:
    started_s = time.monotonic()
    assert executor.passes(HOLE, body(code)) is False
    assert time.monotonic() - started_s < SECONDS + 5


@needs_confinement
@pytest.mark.parametrize(
    "code",
    [
        "b'x' * 2**29",
        "s = []\nwhile True: s.append(bytearray(2**20))",
        "import os\nif not os.fork(): os._exit(0)",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.system('true') and 1 / 0",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join()",
        "open('new', 'w').write('x' * 2**24)",
        "import os; os.mkdir('new')",
        "import os; os.write(os.memfd_create('new'), b'x')",
        "import os; os.kill(os.getppid(), 0)",
        "import socket; socket.socket()",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ],
)
def test_access_beyond_the_program_is_denied(code: str, executor: Executor) -> None:
    assert executor.passes(HOLE, body(code)) is False


@needs_confinement
def test_a_listening_server_cannot_be_reached(executor: Executor, server: int) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {server}), 1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert executor.passes(HOLE, body(code)) is False


@needs_confinement
def test_files_of_the_user_stay_unchanged(executor: Executor, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    before = victim.stat()
    name = str(victim)
    for code in (
        f"open({name!r}, 'w')",
        f"open({name!r}, 'a').write('x')",
        f"open({name!r}, 'r+').truncate()",
        f"import os; os.truncate({name!r}, 0)",
        f"import os; os.remove({name!r})",
        f"import os; os.rename({name!r}, {name!r} + '2')",
        f"import os; os.chmod({name!r}, 0)",
        f"import os; os.chown({name!r}, -1, -1)",
        f"import os; os.chown({name!r}, -1, -1, dir_fd=os.open('/', 0))",
        f"import os; os.symlink({name!r}, {name!r} + '2')",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
    ):
        assert executor.passes(HOLE, body(code)) is False, code
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode == before.st_mode
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


@needs_confinement
def test_program_has_no_environment_no_folder_and_no_packages(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    assert executor.passes(HOLE, body("import os; assert not os.listdir('.')")) is True
    assert executor.passes(HOLE, body("import os; assert 'SECRET_TOKEN' not in os.environ")) is True
    assert executor.passes(HOLE, body("import numpy")) is False


def test_nothing_runs_where_confinement_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "confinement.py"
    broken.write_text("import sys; sys.exit(125)")
    monkeypatch.setattr(confinement, "__file__", str(broken))
    with pytest.raises(EngineError, match="programs cannot be confined here; it needs Linux"):
        Executor(Limits()).probe()


def test_nothing_runs_where_confinement_has_no_effect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loose = tmp_path / "confinement.py"
    loose.write_text("import runpy, sys; runpy.run_path(sys.argv[3], run_name='__main__')")
    monkeypatch.setattr(confinement, "__file__", str(loose))
    with pytest.raises(EngineError, match="programs are not confined on this machine"):
        Executor(Limits()).probe()


def test_an_unknown_processor_has_no_filter() -> None:
    with pytest.raises(OSError, match="no filter for vax"):
        seccomp_filter("vax")
    for machine in ("x86_64", "aarch64"):
        instructions = seccomp_filter(machine)
        # Every jump stays inside the filter; the kernel refuses others, but only on a processor of that kind.
        assert all(index + 1 + max(jumps) < len(instructions) for index, (_, *jumps, _) in enumerate(instructions[:-1]))


def test_script_that_cannot_confine_reports_it_and_does_not_run_the_file(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("print('ran')")
    command = [sys.executable, "-I", "-S", confinement.__file__, "not a number", "1", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (confinement.UNCONFINED, "")


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"num_bytes": 1_000}])
def test_limits_that_are_too_low_are_refused(limits: dict[str, int]) -> None:
    ((name, value),) = limits.items()
    with pytest.raises(ValueError, match=rf"self.{name}={value} must be at least"):
        Limits(**limits)
