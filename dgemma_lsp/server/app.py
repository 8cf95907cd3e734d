"""The language server: protocol messages in, protocol messages out. Handlers only; every decision is made elsewhere.

Exactly one answer per request: nothing to offer is an empty list (a null leaves old ghost text standing in Neovim), and
a superseded or cancelled request is answered with RequestCancelled. Source text reaches no log at INFO or above.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from dgemma_lsp import __version__
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document
from dgemma_lsp.engine_client.connection import Connect
from dgemma_lsp.engine_client.connector import engine_connector
from dgemma_lsp.engine_client.status import METHOD, ServerStatus
from dgemma_lsp.metrics.recorder import StatsRecorder
from dgemma_lsp.metrics.session_counters import METHOD as TALLY
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.postprocess.pipeline import Completion
from dgemma_lsp.privacy.gitignore_tree import NAMES
from dgemma_lsp.request import Channel, Request, Trigger
from dgemma_lsp.server import conversions, preview_handlers
from dgemma_lsp.server.fill_handlers import add_fills
from dgemma_lsp.server.lenient_converter import lenient_converter
from dgemma_lsp.server.load_progress import LoadProgress
from dgemma_lsp.server.log_filter import configure_logs
from dgemma_lsp.server.notebook_handlers import SYNC
from dgemma_lsp.server.protocol import DgemmaProtocol
from dgemma_lsp.server.serving import serve_io, serve_tcp
from dgemma_lsp.session import Session
from dgemma_lsp.settings.home import NO_HOME, home_folder
from dgemma_lsp.settings.settings import SECTION, Settings

_log = logging.getLogger(__name__)

# What `dgemma-lsp stats` says, as JSON; the parameters are ignored.
STATS = "dgemma/stats"
_REQUEST_FAILED = types.LSPErrorCodes.RequestFailed.value


class DgemmaServer(LanguageServer):
    """The server of one editor; says things to it, as `Teller` and `Bar`.

    Args:
        connector: makes the way to the engine that given settings name.
        clock: seconds that never go backwards.
        environ: says where counts are kept.
        client_pid: the editor's process, with whose end the server ends too; None leaves it to `initialize` to name it.
    """

    def __init__(
        self,
        connector: Callable[[Settings], Connect],
        clock: Callable[[], float],
        environ: Mapping[str, str],
        client_pid: int | None,
    ) -> None:
        super().__init__(
            "dgemma-lsp",
            __version__,
            protocol_cls=DgemmaProtocol,
            converter_factory=lenient_converter,
            notebook_document_sync=SYNC,
        )
        home = home_folder(environ) or NO_HOME
        recorder = StatsRecorder(
            StatsFile.locate(environ, home=home), clock=clock, today=lambda: datetime.now(UTC).date().isoformat()
        )
        self.session = Session(connector, clock=clock, teller=self, recorder=recorder, home=home)
        self.load_progress = LoadProgress(self)
        self.encoding = PositionEncoding.UTF16
        self.early_problems: list[str] = []
        self.offers_menu = False
        self.shut_down = False
        self.client_pid = client_pid
        self.watch_client: Callable[[int], None] = lambda _pid: None

    def start_io(self, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None) -> None:
        """Serves the editor at the other end of standard input and output until it says goodbye or is gone."""
        _spare_collections()
        asyncio.run(serve_io(self, stdin or sys.stdin.buffer, stdout or sys.stdout.buffer))

    def start_tcp(self, host: str, port: int) -> None:
        """Serves the first client of a port that says something until it says goodbye or is gone; refuses others.

        Raises:
            OSError: the address cannot be listened on.
        """
        _spare_collections()
        asyncio.run(serve_tcp(self, host, port))

    @property
    def messages(self) -> DgemmaProtocol:
        """Handles the messages."""
        return cast("DgemmaProtocol", self.protocol)

    def publish(self, status: ServerStatus) -> None:
        """Shows a state in the status bar, and loading as a progress bar."""
        self.protocol.notify(METHOD, status.to_wire())
        window = self.client_capabilities.window
        if window is not None and window.work_done_progress:
            self.load_progress.show(status)

    def error(self, message: str) -> None:
        """Shows the user an error."""
        self.window_show_message(types.ShowMessageParams(type=types.MessageType.Error, message=f"dgemma: {message}"))

    def warning(self, message: str) -> None:
        """Shows the user a warning."""
        self.window_show_message(types.ShowMessageParams(type=types.MessageType.Warning, message=message))

    async def create(self, token: str) -> bool:
        """Asks the editor for a progress bar; returns whether it agreed."""
        try:
            await self.work_done_progress.create_async(token)
        except JsonRpcException:
            return False
        return True

    def begin(self, token: str, status: ServerStatus) -> None:
        """Draws it."""
        value = types.WorkDoneProgressBegin(title="dgemma", message=status.message, percentage=status.percent)
        self.work_done_progress.begin(token, value)

    def report(self, token: str, status: ServerStatus) -> None:
        """Moves it."""
        value = types.WorkDoneProgressReport(message=status.message, percentage=status.percent)
        self.work_done_progress.report(token, value)

    def end(self, token: str) -> None:
        """Takes it away."""
        self.work_done_progress.tokens.pop(token, None)
        self.work_done_progress.end(token, types.WorkDoneProgressEnd())

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Logs a fault by its kind, in place of pygls's pop-up: its message may quote a body."""
        _log.error("a message could not be handled (%s)", type(error).__name__)

    def accepted(self, document: Document, completions: Sequence[Completion]) -> list[types.Command | None]:
        """Takes note of a suggestion in its forms; returns what the editor runs when it inserts each."""
        numbers = self.session.recorder.offer(document.uri, document.text, completions) if completions else None
        workspace = self.client_capabilities.workspace
        if numbers is None or not (workspace and workspace.execute_command):
            return [None] * len(completions)
        return [conversions.to_accepted(number) for number in numbers]

    def request_at(self, document: Document, position: types.Position, trigger: Trigger, channel: Channel) -> Request:
        """Returns the question that a position in a document is."""
        return conversions.to_request(
            document,
            position,
            cells=self.session.cells_around(document.uri),
            encoding=self.encoding,
            roots=conversions.to_roots(self.workspace.folders.values(), self.workspace.root_uri),
            trigger=trigger,
            channel=channel,
            deadline_ms=self.session.settings.deadline_ms,
        )


def _spare_collections() -> None:
    # What was made until now stays for good. Each full collection would go through all of it, in 70 ms.
    gc.freeze()


def build_server(
    connector: Callable[[Settings], Connect] = engine_connector,
    *,
    clock: Callable[[], float] = time.monotonic,
    environ: Mapping[str, str] = os.environ,
    client_pid: int | None = None,
) -> DgemmaServer:
    """Returns a server that waits to be started with `start_io` or `start_tcp`.

    Args:
        connector: makes the way to the engine that given settings name.
        clock: seconds that never go backwards.
        environ: says where counts are kept.
        client_pid: the editor's process, with whose end the server ends too.
    """
    server = DgemmaServer(connector, clock, environ, client_pid)
    server.feature(types.INITIALIZE)(_initialize)
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_configuration_changed)
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(_inline_completion)
    server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(_watched_files_changed)
    server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(_folders_changed)
    server.feature(TALLY)(_tally)
    server.feature(STATS)(_stats)
    preview_handlers.register(server)
    add_fills(server, server.session, cancel_with_request=server.messages.cancel_with_request)
    server.feature(types.SHUTDOWN)(_shutdown)
    server.command(conversions.ACCEPTED)(_accepted)
    return server


def _initialize(ls: DgemmaServer, params: types.InitializeParams) -> None:
    if params.process_id is not None:
        ls.watch_client(params.process_id)
    ls.encoding = conversions.to_encoding(ls.workspace.position_encoding)
    ls.early_problems = ls.session.initialize(params.initialization_options)
    configure_logs(ls.session.settings.log_level)
    if ls.session.settings.completion_fallback:
        _offer_menu(ls)


async def _initialized(ls: DgemmaServer, params: types.InitializedParams) -> None:
    ls.session.warn(ls.early_problems)
    ls.session.show_resting()
    workspace = ls.client_capabilities.workspace
    changes = workspace.did_change_configuration if workspace else None
    if changes and changes.dynamic_registration:
        await _register(ls, types.WORKSPACE_DID_CHANGE_CONFIGURATION, {"section": SECTION})
    watching = workspace.did_change_watched_files if workspace else None
    if watching and watching.dynamic_registration:
        watchers = [{"globPattern": f"**/{name}"} for name in NAMES]
        await _register(ls, types.WORKSPACE_DID_CHANGE_WATCHED_FILES, {"watchers": watchers})
    if workspace and workspace.configuration:
        await _pull_configuration(ls)


async def _configuration_changed(ls: DgemmaServer, params: types.DidChangeConfigurationParams) -> None:
    workspace = ls.client_capabilities.workspace
    if params.settings is None and workspace and workspace.configuration:
        await _pull_configuration(ls)
    else:
        await _configure(ls, params.settings)


async def _pull_configuration(ls: DgemmaServer) -> None:
    try:
        items = [types.ConfigurationItem(section=SECTION)]
        answers = await ls.workspace_configuration_async(types.ConfigurationParams(items=items))
    except JsonRpcException as error:
        _log.warning("the editor would not tell its settings (%s)", error.code)
        return
    # A null instead of a list says nothing either.
    if answers and answers[0] is not None:
        await _configure(ls, answers[0])


async def _configure(ls: DgemmaServer, raw: object) -> None:
    ls.session.configure(raw)
    configure_logs(ls.session.settings.log_level)
    if not ls.session.settings.completion_fallback or ls.offers_menu:
        return
    text_document = ls.client_capabilities.text_document
    completion = text_document.completion if text_document else None
    if completion and completion.dynamic_registration:
        _offer_menu(ls)
        await _register(ls, types.TEXT_DOCUMENT_COMPLETION, {"documentSelector": None})
    else:
        ls.session.warn([f"{SECTION}.completionFallback takes effect when the server is restarted"])


async def _register(ls: DgemmaServer, method: str, options: dict[str, Any]) -> None:
    registration = types.Registration(id=f"dgemma-{method}", method=method, register_options=options)
    try:
        await ls.client_register_capability_async(types.RegistrationParams(registrations=[registration]))
    except JsonRpcException as error:
        _log.warning("the editor would not register %s (%s)", method, error.code)


def _offer_menu(ls: DgemmaServer) -> None:
    ls.offers_menu = True
    ls.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(_menu_completion)


async def _inline_completion(
    ls: DgemmaServer, params: types.InlineCompletionParams
) -> list[types.InlineCompletionItem]:
    if (document := ls.session.documents.get(params.text_document.uri)) is None:
        return []
    trigger = conversions.to_trigger(params.context.trigger_kind)
    request = ls.request_at(document, params.position, trigger, Channel.GHOST_TEXT)
    request = conversions.with_selected(request, params.context.selected_completion_info, document.lines, ls.encoding)
    completions = await ls.session.answer(request)
    commands = ls.accepted(document, completions)
    return [
        conversions.to_inline_item(completion, document.lines, ls.encoding, accepted=command)
        for completion, command in zip(completions, commands, strict=True)
    ]


async def _menu_completion(ls: DgemmaServer, params: types.CompletionParams) -> list[types.CompletionItem]:
    document = ls.session.documents.get(params.text_document.uri)
    if document is None or not ls.session.settings.completion_fallback:
        return []
    request = ls.request_at(document, params.position, Trigger.AUTOMATIC, Channel.MENU)
    completions = await ls.session.answer(request)
    commands = ls.accepted(document, completions)
    return [
        conversions.to_menu_item(completion, request.before, document.lines, ls.encoding, accepted=command)
        for completion, command in zip(completions, commands, strict=True)
    ]


def _accepted(ls: DgemmaServer, number: int) -> None:
    ls.session.accept(number)


def _watched_files_changed(ls: DgemmaServer, params: types.DidChangeWatchedFilesParams) -> None:
    ls.session.ignore_files_changed()


def _folders_changed(ls: DgemmaServer, params: types.DidChangeWorkspaceFoldersParams) -> None:
    ls.session.folders_changed()


def _tally(ls: DgemmaServer, params: object) -> dict[str, Any]:
    return ls.session.tally.counts()


def _stats(ls: DgemmaServer, params: object) -> dict[str, Any]:
    try:
        return ls.session.recorder.figures()
    except (OSError, ValueError) as error:
        raise JsonRpcException(str(error), code=_REQUEST_FAILED) from None


async def _shutdown(ls: DgemmaServer, params: None) -> None:
    ls.shut_down = True
    try:
        await ls.session.close()
    except Exception as error:
        # The editor cannot do anything about it, and wants to close.
        _log.error("the session did not close cleanly (%s)", type(error).__name__)
