"""Dialects -> one ASGI application: routes, the gate before them, errors in the shape of the path's dialect.

Runs under uvicorn (`http_server`) or as the ingress of a cluster; holds no socket and no engine of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from dgemma_engine.http_api.access.gate import Gate
from dgemma_engine.http_api.completions.completion_service import CompletionEngine, CompletionService, OnEnd, ignore_end
from dgemma_engine.http_api.dialects.infill import InfillDialect
from dgemma_engine.http_api.dialects.language_server import LanguageServerDialect
from dgemma_engine.http_api.dialects.llama_cpp import LlamaCppDialect
from dgemma_engine.http_api.dialects.mistral import MistralDialect
from dgemma_engine.http_api.dialects.ollama import OllamaDialect
from dgemma_engine.http_api.dialects.openai import OpenAiDialect
from dgemma_engine.http_api.dialects.tabby import TabbyDialect
from dgemma_engine.http_api.endpoint import Endpoint
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.http_api.openapi import openapi_document
from dgemma_engine.http_api.operation import Call, Dialect, Operation
from dgemma_engine.http_api.refusal import Refusal

DIALECTS: tuple[Callable[[], Dialect], ...] = (
    InfillDialect,
    LanguageServerDialect,
    LlamaCppDialect,
    OpenAiDialect,
    MistralDialect,
    OllamaDialect,
    TabbyDialect,
)
"""In order of precedence: of two that claim a body the earlier one answers it."""
OPENAPI_PATH = "/openapi.json"


def create_app(
    engine: CompletionEngine,
    settings: HttpSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    on_end: OnEnd = ignore_end,
) -> ASGIApp:
    """Returns the application.

    Args:
        engine: answers; called on the event loop that serves.
        settings: names, keys and limits.
        clock: seconds that never go backwards.
        on_end: called with how each completion ended.
    """
    service = CompletionService(engine, settings, clock=clock, on_end=on_end)
    dialects = [make() for make in DIALECTS]
    by_path: dict[str, list[tuple[Dialect, Operation]]] = {}
    for dialect in dialects:
        for operation in dialect.operations():
            for path in operation.paths:
                by_path.setdefault(path, []).append((dialect, operation))
    document = msgspec.json.encode(openapi_document(dialects))

    async def publish(_call: Call) -> Response:
        return Response(document, media_type="application/json")

    published = Operation(method="GET", paths=(OPENAPI_PATH,), run=publish, summary="this document")
    by_path[OPENAPI_PATH] = [(dialects[0], published)]

    by_part: dict[str, Dialect] = {"": dialects[0]}
    for path, found in by_path.items():
        by_part.setdefault(_first_part(path), found[0][0])

    def render(path: str, refusal: Refusal) -> Response:
        # On a shared path the shape of the first dialect, in which clients of either find the message. On an unknown
        # path that of a path with the same first part: clients try further paths of their API, and read the error.
        found = by_path.get(path)
        dialect = found[0][0] if found else by_part.get(_first_part(path), dialects[0])
        return dialect.error(refusal)

    # A parameter may have slashes: names of models do.
    routes = [Route(path.replace("}", ":path}"), Endpoint(service, found)) for path, found in by_path.items()]
    router = Router(routes, redirect_slashes=False, default=_no_such_path)
    open_paths = [path for path, found in by_path.items() if not all(one.needs_key for _, one in found)]
    return Gate(router, settings, render=render, open_paths=open_paths)


async def _no_such_path(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Refusal(status=404, message="There is no such path.")


def _first_part(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]
