"""The command `dgemma-lsp`: serve an editor, or answer one question on a terminal. The only module that prints.

Arguments -> exit code: 0 done, 1 the engine or a check failed, 2 the arguments or the file cannot be used. What a
command does not need is not imported, so that the small ones start at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

from dgemma_engine.model_store.catalogue import renamed
from dgemma_engine.private_files import keep_own_rights
from dgemma_engine.terminal import run_program, say_error

from dgemma_lsp.commands.arguments import argument_parser
from dgemma_lsp.settings.home import NO_HOME, home_folder
from dgemma_lsp.settings.settings import Settings

if TYPE_CHECKING:
    from dgemma_engine.engine_client.infill_source import InfillSource
    from dgemma_engine.protocol.status_messages import Status

    from dgemma_lsp.commands.file_location import FilePosition, Target

_NAME = "dgemma-lsp"
_LOAD_TIMEOUT_S = 600.0
_Result = TypeVar("_Result")


class _Refusal(Exception):
    """Ends a command with an exit code and one sentence."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        The exit code.
    """

    def run() -> int:
        keep_own_rights()
        arguments = argument_parser().parse_args(argv)
        try:
            return _COMMANDS[arguments.command](arguments)
        except _Refusal as refusal:
            say_error(_NAME, str(refusal))
            return refusal.code

    return run_program(_NAME, run)


def _serve(arguments: Namespace) -> int:
    from dgemma_lsp.server.app import build_server
    from dgemma_lsp.server.log_filter import configure_logs

    configure_logs(Settings().log_level)
    server = build_server(client_pid=arguments.client_pid)
    # Ctrl-C ends the program at once, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments.tcp is None:
        # Python sets it to None where standard input was closed before the program began.
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise _Refusal("standard input is closed; an editor starts dgemma-lsp with pipes, see --help", code=2)
        if not _is_writable(sys.stdout):
            raise _Refusal("standard output is closed; an editor starts dgemma-lsp with pipes, see --help", code=2)
        if sys.stdin.isatty():
            print("dgemma-lsp: waiting for an editor on standard input; see dgemma-lsp --help", file=sys.stderr)
        server.start_io()
    else:
        host, port = arguments.tcp
        try:
            server.start_tcp(host, port)
        except OSError as error:
            message = f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --tcp"
            raise _Refusal(message, code=2) from None
    return 0 if server.shut_down else 1


def _complete(arguments: Namespace) -> int:
    from dgemma_lsp.commands.complete import answer_at, render
    from dgemma_lsp.engine_client.infill_client import ContextLimits
    from dgemma_lsp.request import Trigger

    async def ask(client: InfillSource, status: Status) -> str:
        answer = await answer_at(
            place,
            client,
            trigger=Trigger.AUTOMATIC if arguments.while_typing else Trigger.INVOKED,
            limits=ContextLimits(seed=arguments.seed),
            deadline_ms=arguments.deadline_ms,
            clock=time.monotonic,
        )
        if arguments.json:
            return json.dumps(answer.to_json(status))
        return render(answer, colour=_wants_colour(sys.stdout)).rstrip("\n")

    _, place = _public_place(arguments.target)
    print(_with_engine(arguments, ask))
    return 0


def _trace(arguments: Namespace) -> int:
    from dgemma_lsp.commands.atomic_file import NewFile, OutputRefused
    from dgemma_lsp.commands.complete import request_at, require_answer
    from dgemma_lsp.commands.trace_report import to_html, trace_view
    from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
    from dgemma_lsp.request import Trigger

    async def ask(client: InfillSource, status: Status) -> str:
        # As while typing: the page says why nothing is shown.
        request = request_at(place, trigger=Trigger.AUTOMATIC, deadline_ms=arguments.deadline_ms)
        trace = await client.trace(build_context(request, ContextLimits(seed=arguments.seed)))
        require_answer(trace.infill)
        return to_html(trace_view(request, target.line, target.column, trace, status))

    target, place = _public_place(arguments.target)
    try:
        # Opened before the engine is asked: a page that cannot be written is refused at once.
        with NewFile(arguments.html, source=place.path) as file:
            file.write(_with_engine(arguments, ask))
    except OutputRefused as error:
        raise _Refusal(str(error), code=2) from None
    except OSError as error:
        message = f"cannot write {arguments.html}: {error.strerror or error}; name a file in a folder of yours"
        raise _Refusal(message, code=2) from None
    print(f"{arguments.html}: open it in a browser; it holds lines of {place.path}")
    return 0


def _demo(arguments: Namespace) -> int:
    from dgemma_lsp.commands.demo import run_demo
    from dgemma_lsp.engine_client.infill_client import ContextLimits

    async def show(client: InfillSource, status: Status) -> None:
        await run_demo(
            client,
            status,
            limits=ContextLimits(seed=arguments.seed),
            deadline_ms=arguments.deadline_ms,
            clock=time.monotonic,
            write=print,
            colour=_wants_colour(sys.stdout),
        )

    _with_engine(arguments, show)
    return 0


def _doctor(arguments: Namespace) -> int:
    from dgemma_lsp.commands.doctor import examine, is_usable, to_table
    from dgemma_lsp.commands.editor_settings import read_editor_settings

    try:
        settings, problems = read_editor_settings(arguments.settings, _settings(arguments))
    except ValueError as error:
        raise _Refusal(str(error), code=2) from None
    checks = [*problems, *asyncio.run(examine(settings))]
    if arguments.json:
        print(json.dumps({"usable": is_usable(checks), "checks": [check.to_json() for check in checks]}))
    else:
        print(to_table(checks))
    return 0 if is_usable(checks) else 1


def _settings_page(arguments: Namespace) -> int:
    from dgemma_lsp.settings.schema import to_lines, to_markdown, to_schema

    if arguments.page == "schema":
        print(json.dumps(to_schema(), indent=2))
    else:
        print(to_markdown() if arguments.page == "markdown" else to_lines())
    return 0


def _stats(arguments: Namespace) -> int:
    from dgemma_lsp.metrics.report import to_figures, to_lines
    from dgemma_lsp.metrics.store import StatsFile

    file = StatsFile.locate(os.environ, home=home_folder(os.environ) or NO_HOME)
    try:
        if arguments.delete:
            print(f"{file.path}: {'removed' if file.delete() else 'does not exist; nothing to delete'}")
            return 0
        stats = file.read()
    except OSError as error:
        raise _Refusal(f"{file.path}: {error.strerror or error}", code=1) from None
    except ValueError as error:
        raise _Refusal(str(error), code=1) from None
    print(json.dumps(to_figures(stats)) if arguments.json else to_lines(stats))
    return 0


def _settings(arguments: Namespace) -> Settings:
    return Settings(
        engine_model=arguments.model,
        engine_device=arguments.device,
        engine_url=arguments.url,
        engine_key_file=arguments.key_file,
        engine_ca_file=arguments.ca_file,
        engine_plain_http_hosts=tuple(arguments.plain_http_host),
    )


def _public_place(argument: str) -> tuple[Target, FilePosition]:
    """Reads FILE:LINE:COLUMN and the file; refuses what is wrong with them, and private files."""
    from dgemma_lsp.commands.file_location import Target, TargetError, read_place
    from dgemma_lsp.privacy.policy import Privacy

    try:
        target = Target.parse(argument)
        place = read_place(target)
    except TargetError as error:
        raise _Refusal(str(error), code=2) from None
    home = home_folder(os.environ) or NO_HOME
    privacy = Privacy((), home=home, clock=time.monotonic, report=lambda line: say_error(_NAME, line))
    if why := privacy.why_not_read(place.path, head=place.text):
        raise _Refusal(f"{place.path}: {why}", code=2)
    return target, place


def _with_engine(arguments: Namespace, work: Callable[[InfillSource, Status], Awaitable[_Result]]) -> _Result:
    """Returns the result of `work` on the engine that the arguments name, once its model is loaded."""
    from dgemma_engine.checkpoint.builtin import require_model
    from dgemma_engine.errors import EngineFault, EngineUnavailable, WrongUsage

    from dgemma_lsp.commands.progress_line import ProgressLine
    from dgemma_lsp.engine_client.connector import chosen_model, ready_engine

    settings = _settings(arguments)
    choice = chosen_model(settings)
    if choice.missing is not None and not choice.is_stand_in:
        raise _Refusal(choice.notice, code=2)
    if (notice := renamed(settings.engine_model) or choice.notice) and not settings.engine_url:
        say_error(_NAME, notice)

    async def run() -> _Result:
        progress = ProgressLine(sys.stderr).show
        async with ready_engine(settings, timeout_s=_LOAD_TIMEOUT_S, on_progress=progress) as engine:
            return await work(*engine)

    try:
        if not settings.engine_url:
            require_model(choice.runs)
        return asyncio.run(run())
    except (EngineUnavailable, EngineFault, WrongUsage) as error:
        raise _Refusal(str(error), code=2 if isinstance(error, WrongUsage) else 1) from None


def _is_writable(out: TextIO) -> bool:
    """Whether the descriptor is open for writing; `open_standard_streams` leaves a closed one open for reading."""
    if sys.platform == "win32":
        # A descriptor that is closed has no file.
        return True
    import fcntl

    return fcntl.fcntl(out.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _wants_colour(out: TextIO) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR")


_COMMANDS: Mapping[str, Callable[[Namespace], int]] = {
    "serve": _serve,
    "complete": _complete,
    "trace": _trace,
    "demo": _demo,
    "doctor": _doctor,
    "settings": _settings_page,
    "stats": _stats,
}
