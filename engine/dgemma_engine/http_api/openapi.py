"""Operations -> an OpenAPI 3.1 document: paths, bodies, answers and errors, from the types that read and write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from dgemma_engine import __version__
from dgemma_engine.http_api.operation import Dialect, Operation

_PARAMETER = re.compile(r"\{(\w+)\}")
_SEPARATORS = re.compile(r"\W+")
_INVALID = "a field cannot be used"
_ERRORS = {
    401: "a key is needed",
    403: "Host or Origin is not known",
    413: "the body is too large",
    415: "the body is not JSON",
    429: "too much is under way; see Retry-After",
    503: "no engine answers, or it is loading; see Retry-After",
}


def openapi_document(dialects: Sequence[Dialect]) -> dict[str, Any]:
    """Returns the document.

    Args:
        dialects: what is published, the first on a shared path before the others.
    """
    operations = [(dialect, operation) for dialect in dialects for operation in dialect.operations()]
    kinds = list(dict.fromkeys(kind for _, one in operations for kind in _kinds(one.body) + _kinds(one.answer)))
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    by_kind = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for dialect, operation in operations:
        for path in operation.paths:
            item = paths.setdefault(path, {})
            _add(item, operation.method.lower(), _described(dialect, operation, path, by_kind))
    return {
        "openapi": "3.1.0",
        "info": {"title": "dgemma-engine", "version": __version__},
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds(kind: Any) -> tuple[Any, ...]:
    """Returns the types that a body or an answer may have."""
    if kind is None:
        return ()
    return cast("tuple[Any, ...]", kind) if isinstance(kind, tuple) else (kind,)


def _add(item: dict[str, Any], method: str, described: dict[str, Any]) -> None:
    """Adds what a dialect does on a path; on one that another dialect has already, as one more body and answer."""
    known = item.get(method)
    if known is None:
        item[method] = described
        return
    known["summary"] += f"; {described['summary']}"
    known["tags"] += described["tags"]
    for whole, further in (
        (known.get("requestBody"), described.get("requestBody")),
        (known["responses"]["200"], described["responses"]["200"]),
    ):
        for kind, content in (further or {}).get("content", {}).items():
            mine = (whole or {}).get("content", {}).get(kind)
            if mine is not None and mine != content:
                both = [one for side in (mine, content) for one in side["schema"].get("anyOf", [side["schema"]])]
                mine["schema"] = {"anyOf": both}


def _described(dialect: Dialect, operation: Operation, path: str, schemas: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        answers = [schemas[kind] for kind in _kinds(operation.answer)]
        content["application/json"] = {"schema": answers[0] if len(answers) == 1 else {"anyOf": answers}}
    if operation.body is not None and "stream" in operation.body.__struct_fields__:
        # A schema would be that of one event, which differs by dialect.
        content[operation.stream_type] = {}
    error = {"schema": {"type": "object"}}
    responses: dict[str, Any] = {"200": {"description": "the answer", "content": content}}
    parameters = _PARAMETER.findall(path)
    errors = _ERRORS if operation.body is None else {400: _INVALID, operation.invalid_status: _INVALID} | _ERRORS
    for status, text in errors.items():
        if operation.body is not None or status not in (413, 415, 429):
            responses[str(status)] = {"description": text, "content": {"application/json": error}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{_SEPARATORS.sub('_', path).rstrip('_')}",
        "tags": [dialect.name],
        "responses": responses,
    }
    if parameters:
        known = {"in": "path", "required": True, "schema": {"type": "string"}}
        described["parameters"] = [{"name": name, **known} for name in parameters]
        responses["404"] = {"description": "there is none of this name", "content": {"application/json": error}}
    if operation.body is not None:
        body = {"application/json": {"schema": schemas[operation.body]}}
        described["requestBody"] = {"required": True, "content": body}
    return described
