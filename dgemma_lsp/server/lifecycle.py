"""From `initialize` to `shutdown`: capabilities, registrations, settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dgemma_engine.privacy.gitignore_tree import NAMES
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dgemma_lsp.server import conversions
from dgemma_lsp.server.log_filter import configure_logs
from dgemma_lsp.server.model_handlers import tell_missing
from dgemma_lsp.settings.settings import SECTION

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

_log = logging.getLogger(__name__)


def register(server: DgemmaServer) -> None:
    """Registers the handlers."""
    server.feature(types.INITIALIZE)(_initialize)
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_configuration_changed)
    server.feature(types.SHUTDOWN)(_shutdown)


def _initialize(ls: DgemmaServer, params: types.InitializeParams) -> None:
    if params.process_id is not None:
        ls.watch_client(params.process_id)
    ls.encoding = conversions.to_encoding(ls.workspace.position_encoding)
    ls.early_problems = ls.session.initialize(params.initialization_options)
    configure_logs(ls.session.settings.log_level)
    if ls.session.settings.completion_fallback:
        ls.offer_menu()


async def _initialized(ls: DgemmaServer, params: types.InitializedParams) -> None:
    ls.session.warn(ls.early_problems)
    ls.session.board.show_current()
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
    tell_missing(ls)
    ls.keep_http_server()


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
        _log.warning("the editor refused to send its settings (%s)", error.code)
        return
    # An editor may answer null instead of a list.
    if answers and answers[0] is not None:
        await _configure(ls, answers[0])


async def _configure(ls: DgemmaServer, raw: object) -> None:
    ls.session.configure(raw)
    configure_logs(ls.session.settings.log_level)
    tell_missing(ls)
    ls.keep_http_server()
    if not ls.session.settings.completion_fallback or ls.offers_menu:
        return
    text_document = ls.client_capabilities.text_document
    completion = text_document.completion if text_document else None
    if completion and completion.dynamic_registration:
        ls.offer_menu()
        await _register(ls, types.TEXT_DOCUMENT_COMPLETION, {"documentSelector": None})
    else:
        ls.session.warn([f"{SECTION}.completionFallback takes effect when the server is restarted"])


async def _register(ls: DgemmaServer, method: str, options: dict[str, Any]) -> None:
    registration = types.Registration(id=f"dgemma-{method}", method=method, register_options=options)
    try:
        await ls.client_register_capability_async(types.RegistrationParams(registrations=[registration]))
    except JsonRpcException as error:
        _log.warning("the editor refused to register %s (%s)", method, error.code)


async def _shutdown(ls: DgemmaServer, params: None) -> None:
    ls.shut_down = True
    try:
        await ls.http_server_process.close()
        await ls.session.close()
    except Exception as error:
        # The editor cannot do anything about it, and wants to close.
        _log.error("the session did not close cleanly (%s)", type(error).__name__)
