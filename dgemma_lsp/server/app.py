"""The language server: protocol messages in, protocol messages out. Composes the handlers; decides nothing.

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
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from dgemma_engine.engine_client.infill_source import Connect
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.repository_adapters.store import AdapterStore
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from dgemma_lsp import __version__
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document
from dgemma_lsp.engine_client.connector import chosen_model, engine_connector
from dgemma_lsp.engine_client.http_server_process import HttpServerProcess, serve_command
from dgemma_lsp.engine_client.status import METHOD, ServerStatus, StatusKind
from dgemma_lsp.metrics.recorder import TALLY, StatsRecorder
from dgemma_lsp.metrics.store import StatsFile
from dgemma_lsp.model_fetch.declined_models import DeclinedModels
from dgemma_lsp.model_fetch.pull_process import pull_command
from dgemma_lsp.repository_learning.hinted_repositories import HintedRepositories
from dgemma_lsp.request import Channel, Request, Trigger
from dgemma_lsp.server import (
    completion_handlers,
    conversions,
    fill_handlers,
    lifecycle,
    model_handlers,
    preview_handlers,
)
from dgemma_lsp.server.copilot import handlers as copilot
from dgemma_lsp.server.fill_conversions import field
from dgemma_lsp.server.learning import handlers as learning
from dgemma_lsp.server.lenient_converter import lenient_converter
from dgemma_lsp.server.notebook_handlers import SYNC
from dgemma_lsp.server.progress_bars import LoadProgress
from dgemma_lsp.server.protocol import DgemmaProtocol
from dgemma_lsp.server.serving import serve_io, serve_tcp
from dgemma_lsp.session import Session
from dgemma_lsp.settings.home import NO_HOME, home_folder
from dgemma_lsp.settings.settings import SECTION, Settings

_log = logging.getLogger(__name__)

# The figures of `dgemma-lsp stats`, as JSON; the parameters are ignored.
STATS = "dgemma/stats"
_REQUEST_FAILED = types.LSPErrorCodes.RequestFailed.value


class DgemmaServer(LanguageServer):
    """The server of one editor; notifies it as `ClientNotifier`, and draws its progress bar.

    Args:
        connector: returns the function that connects to the engine of given settings.
        clock: seconds that never go backwards.
        environ: the process's environment, which locates the folder for counts.
        client_pid: the editor's process; the server ends with it. None takes the one that `initialize` names.
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
        self.session = Session(connector, chosen_model, clock=clock, notifier=self, recorder=recorder, home=home)
        self.http_server_process = HttpServerProcess(lambda message: self.session.warn([message]))
        self.serve_command = serve_command
        self.declined = DeclinedModels.locate(environ, home=home)
        self.pull_command = pull_command
        self.fetching = asyncio.Lock()
        self.adapters = _adapter_store(environ)
        self.hinted = HintedRepositories.locate(environ, home=home)
        self.engine_program: list[str] = []
        self.learning = asyncio.Lock()
        self.learner: asyncio.Task[object] | None = None
        self._hinting: asyncio.Task[None] | None = None
        self.told_missing: set[str] = set()
        self.load_progress = LoadProgress(self)
        self.encoding = PositionEncoding.UTF16
        self.early_problems: list[str] = []
        self.offers_menu = False
        self.shut_down = False
        self.client_pid = client_pid
        self.watch_client: Callable[[int], None] = lambda _pid: None

    def start_io(self, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None) -> None:
        """Serves the editor on standard input and output until it sends `exit` or its streams close."""
        _spare_collections()
        asyncio.run(serve_io(self, stdin or sys.stdin.buffer, stdout or sys.stdout.buffer))

    def start_tcp(self, host: str, port: int) -> None:
        """Serves the first client of a port that sends a byte until it sends `exit` or disconnects; refuses others.

        Raises:
            OSError: the server cannot listen on the address.
        """
        _spare_collections()
        asyncio.run(serve_tcp(self, host, port))

    @property
    def messages(self) -> DgemmaProtocol:
        """Handles the messages."""
        return cast("DgemmaProtocol", self.protocol)

    @property
    def roots(self) -> tuple[str, ...]:
        """The uris of the workspace's folders."""
        return conversions.to_roots(self.workspace.folders.values(), self.workspace.root_uri)

    def publish(self, status: ServerStatus) -> None:
        """Shows a state in the status bar, and loading as a progress bar; hints may follow once the engine is ready."""
        self.protocol.notify(METHOD, status.to_wire())
        window = self.client_capabilities.window
        if window is not None and window.work_done_progress:
            self.load_progress.show(status)
        if status.kind is StatusKind.READY and self._hinting is None:
            self._hinting = asyncio.create_task(learning.hint(self))

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
        """Opens the progress bar."""
        value = types.WorkDoneProgressBegin(title="dgemma", message=status.message, percentage=status.percent)
        self.work_done_progress.begin(token, value)

    def report(self, token: str, status: ServerStatus) -> None:
        """Updates the progress bar."""
        value = types.WorkDoneProgressReport(message=status.message, percentage=status.percent)
        self.work_done_progress.report(token, value)

    def end(self, token: str) -> None:
        """Closes the progress bar."""
        self.work_done_progress.tokens.pop(token, None)
        self.work_done_progress.end(token, types.WorkDoneProgressEnd())

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Logs a fault by its kind, in place of pygls's pop-up: its message may quote a body."""
        _log.error("a message could not be handled (%s)", type(error).__name__)

    def editor_offers(self, feature: str) -> bool:
        """Returns whether the editor declares a feature under `experimental.dgemma` in its capabilities."""
        return field(field(self.client_capabilities.experimental, SECTION, None), feature, None) is True

    def keep_http_server(self) -> None:
        """Starts or ends the HTTP server as the settings require."""
        self.http_server_process.configure(self.serve_command(self.session.settings))

    def offer_menu(self) -> None:
        """Registers the handler of the completion menu."""
        self.offers_menu = True
        completion_handlers.register_menu(self)

    def request_at(self, document: Document, position: types.Position, trigger: Trigger, channel: Channel) -> Request:
        """Returns the request for a position in a document."""
        return conversions.to_request(
            document,
            position,
            cells=self.session.cells_around(document.uri),
            encoding=self.encoding,
            roots=self.roots,
            trigger=trigger,
            channel=channel,
            deadline_ms=self.session.settings.deadline_ms,
        )


def _adapter_store(environ: Mapping[str, str]) -> AdapterStore | None:
    """Returns the adapters of the user's repositories; None without a home folder."""
    with suppress(ModelStoreError):
        return AdapterStore.locate(environ)
    return None


def _spare_collections() -> None:
    # Objects made so far stay to the end; without this each full garbage collection takes 70 ms to go through them.
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
        connector: returns the function that connects to the engine of given settings.
        clock: seconds that never go backwards.
        environ: the process's environment, which locates the folder for counts.
        client_pid: the editor's process; the server ends with it.
    """
    server = DgemmaServer(connector, clock, environ, client_pid)
    lifecycle.register(server)
    completion_handlers.register(server)
    server.command(conversions.ACCEPTED)(_accepted)
    server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(_watched_files_changed)
    server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(_folders_changed)
    server.feature(TALLY)(_tally)
    server.feature(STATS)(_stats)
    copilot.register(server)
    preview_handlers.register(server)
    fill_handlers.register(server)
    model_handlers.register(server)
    learning.register(server)
    return server


# pygls evaluates the annotations of a command's arguments.
def _accepted(ls: DgemmaServer, number: int) -> None:
    ls.session.accept(number)


def _watched_files_changed(ls: DgemmaServer, params: types.DidChangeWatchedFilesParams) -> None:
    ls.session.ignore_files_changed()


def _folders_changed(ls: DgemmaServer, params: types.DidChangeWorkspaceFoldersParams) -> None:
    ls.session.folders_changed()


def _tally(ls: DgemmaServer, params: object) -> dict[str, Any]:
    return ls.session.recorder.session_counts()


def _stats(ls: DgemmaServer, params: object) -> dict[str, Any]:
    try:
        return ls.session.recorder.figures()
    except (OSError, ValueError) as error:
        raise JsonRpcException(str(error), code=_REQUEST_FAILED) from None
